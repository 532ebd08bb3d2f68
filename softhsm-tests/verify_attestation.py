#!/usr/bin/env python3
"""Verifies VEID attestations, signed one by one or under a Merkle root, without the signer's code (vectors/MERKLE.md).

usage: verify_attestation.py KEYS FILE...   KEYS: a JWK set. FILE: an attestation, or the answer to a batch.
Prints one line for each attestation: "valid ID", or "INVALID ID reason". Looks at no clock."""

import base64, hashlib, json, sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

ROOT_TYPE = "application/vnd.virtengine.veid.merkle-root"
# The curve, the order of its group, and the name of the key in a JWK.
P256 = (ec.SECP256R1(), 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, "P-256")
K256 = (ec.SECP256K1(), 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141, "secp256k1")
TYPES = {"EcdsaSecp256r1Signature2019": P256, "EcdsaSecp256k1Signature2019": K256, "Ed25519Signature2020": None}


class Wrong(Exception):
    pass


def unique(pairs):
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Wrong("a field twice")
    return fields


def decode(text, length, urlsafe=False):
    """Base64 in its one spelling."""
    raw = base64.b64decode(text, altchars=b"-_" if urlsafe else None, validate=True)
    if len(raw) != length or base64.b64encode(raw).decode() != text.replace("-", "+").replace("_", "/"):
        raise Wrong("not the base64 of %d bytes" % length)
    return raw


def canonical(statement):
    """What is signed, or the leaf: compact JSON, escaped as Go escapes."""
    text = json.dumps(statement, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, "\\u%04x" % ord(character))
    return text.encode()


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf, index, size, path):
    """RFC 9162, 2.1.3.2."""
    if not 0 <= index < size <= 65536:
        raise Wrong("no such place in such a tree")
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            raise Wrong("the path is too long")
        if fn & 1 or fn == sn:
            r = node(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise Wrong("the path is too short")
    return r


def signed_bytes(statement, proof):
    """The type of signature, and what it is over."""
    if not proof["type"].startswith("Merkle"):
        if "merkle" in proof:
            raise Wrong("a path with a signature of its own")
        return proof["type"], canonical(statement)
    place = proof["merkle"]
    size, index = place["tree_size"], place["leaf_index"]
    if set(place) != {"tree_size", "leaf_index", "path"} or type(size) is not int or type(index) is not int:
        raise Wrong("not a place in a tree")
    leaf = hashlib.sha256(b"\x00" + canonical(statement)).digest()
    top = root(leaf, index, size, [decode(one, 32) for one in place["path"]])
    body = b"%d\n%s\n" % (size, base64.b64encode(top))
    pae = b"DSSEv1 %d %s %d %s" % (len(ROOT_TYPE), ROOT_TYPE.encode(), len(body), body)
    return proof["type"].removeprefix("Merkle"), pae


def verify_signature(kind, jwk, signature, message):
    if TYPES[kind] is None:
        if (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519"):
            raise Wrong("another kind of key")
        return ed25519.Ed25519PublicKey.from_public_bytes(coordinate(jwk["x"])).verify(signature, message)
    curve, order, name = TYPES[kind]
    if (jwk["kty"], jwk["crv"]) != ("EC", name):
        raise Wrong("another kind of key")
    x, y, r, s = (int.from_bytes(part, "big") for part in
                  (coordinate(jwk["x"]), coordinate(jwk["y"]), signature[:32], signature[32:]))
    if s > order // 2:
        raise Wrong("a high S")
    key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))


def coordinate(text):
    return decode(text + "=", 32, urlsafe=True)


def verify(attestation, keys, seen=set()):
    """One signature is checked once, however many attestations are under it."""
    statement = dict(attestation)
    proof = statement.pop("proof")
    kid = proof["verification_method"].rpartition("#")[2]
    if proof["verification_method"] != "%s#%s" % (statement["issuer"]["id"], kid) or kid not in keys:
        raise Wrong("an unknown key")
    if proof["nonce"] != statement["nonce"]:
        raise Wrong("another nonce")
    kind, message = signed_bytes(statement, proof)
    signature = decode(proof["proof_value"], 64)
    if (kid, kind, signature, message) not in seen:
        verify_signature(kind, keys[kid], signature, message)
        seen.add((kid, kind, signature, message))


def main(key_file, *files):
    keys = {key["kid"]: key for key in json.load(open(key_file))["keys"]}
    wrong = 0
    for file in files:
        try:
            found = json.load(open(file), object_pairs_hook=unique)
            found = [one["attestation"] for one in found if one.get("attestation")] if isinstance(found, list) else [found]
        except Wrong as error:
            found, wrong = [], wrong + 1
            print("INVALID", file, error)
        for attestation in found:
            try:
                verify(attestation, keys)
                print("valid", attestation["id"])
            except (Wrong, InvalidSignature, ValueError, KeyError, TypeError) as error:
                wrong += 1
                print("INVALID", attestation["id"], type(error).__name__, error)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
