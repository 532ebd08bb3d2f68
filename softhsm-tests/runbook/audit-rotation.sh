# Check audit log size
du -sh /var/log/virtengine/audit/

# Trigger rotation (if file-based)
kill -USR1 $(pgrep verification-signer)

# Archive old logs
tar -czf audit-$(date +%Y%m%d).tar.gz /var/log/virtengine/audit/*.log.*
