"""What enrolment and renewal say over the wire. Fields that a reader does not know are left alone."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

AUTHORITY_PATH = "/identity/1/authority"
ENROL_PATH = "/identity/1/enrol"
RENEW_PATH = "/identity/1/renew"


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class AuthorityReply(_Wire):
    """The hub's authority: PEM. Anybody may ask; whoever does believes it by the fingerprint of an invitation."""

    authority: str = Field(max_length=10_000)


class EnrolRequest(_Wire):
    """An invitation, and the signing request of the key that is to be certified, PEM."""

    token: str = Field(max_length=400)
    request: str = Field(max_length=4_000)


class CertificateReply(_Wire):
    """The certificate of the agent, PEM; with an enrolment also whose agent it is by it, as far as the hub says."""

    certificate: str = Field(max_length=10_000)
    hub: str = Field("", max_length=100, description="the site of the hub")
    environment: str = Field("", max_length=20)
