"""The hub's seal on an estate that it hands out: a signature with the key of its authority, which every site knows.

It covers the number of the bundle, the hash of the estate, and whose estate in which environment that is: what the hub sealed
for the test is worth nothing in production. The same key gives the one of the hub's proofs (`agent.sync.proofs`), which nobody
else knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from state.bundles import Bundle
from state.model.errors import InvariantError
from state.model.estate import EstateSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The seal of one hub for one estate and environment. With the key it can be put on, without it only be known."""

    authority: EllipticCurvePublicKey
    settings: EstateSettings
    key: EllipticCurvePrivateKey | None = None

    @classmethod
    def of_hub(cls, key: EllipticCurvePrivateKey, settings: EstateSettings) -> Self:
        """The seal of the hub whose authority has this key."""
        return cls(authority=key.public_key(), settings=settings, key=key)

    @classmethod
    def of_authority(cls, pem: str, settings: EstateSettings) -> Self:
        """What a site knows of it: the authority's certificate. Raises ValueError."""
        authority = x509.load_pem_x509_certificate(pem.encode()).public_key()
        if not isinstance(authority, EllipticCurvePublicKey):
            raise ValueError("its authority has a key of another kind")
        return cls(authority=authority, settings=settings)

    def put_on(self, bundle: Bundle) -> bytes:
        """The signature on the bundle."""
        if self.key is None:
            raise InvariantError("only the hub can seal a bundle")
        return self.key.sign(self._words(bundle), ECDSA(SHA256()))

    def is_on(self, bundle: Bundle) -> bool:
        """Whether the bundle carries it."""
        try:
            self.authority.verify(bundle.seal, self._words(bundle), ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    def key_of_proofs(self) -> bytes:
        """The secret of the hub that stays the same as long as its authority does (RFC 5869): 32 bytes."""
        if self.key is None:
            raise InvariantError("only the hub can give proofs")
        secret = self.key.private_numbers().private_value.to_bytes((self.key.key_size + 7) // 8, "big")
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"distctl proof 1").derive(secret)

    def _words(self, bundle: Bundle) -> bytes:
        """What is signed; the first line keeps it apart from anything else that the key ever signs."""
        words = ("distctl bundle 1", self.settings.name, self.settings.environment, bundle.number, bundle.estate)
        return "\n".join(map(str, words)).encode()
