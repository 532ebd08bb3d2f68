# 2. Clear any corrupt state
redis-cli -h redis KEYS "virtengine:veid:*" | xargs redis-cli -h redis DEL
