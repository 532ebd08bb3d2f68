# How schemathesis writes a certificate chain: as it stands.
import schemathesis


@schemathesis.serializer("application/pem-certificate-chain")
def pem(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
