"""Redaction: anything that looks like an API key is hidden before text is printed or written."""

import re

HIDDEN = "[hidden]"

_KNOWN_FORMS = (
    r"(?:sk|pk|rk)[-_][\w-]{6,}"
    r"|hf_[A-Za-z0-9]{10,}"
    r"|(?:gh[a-z]|github_pat|glpat|xox[a-z])[-_][\w-]{8,}"
    r"|(?:AKIA|AIza|eyJ)[\w.-]{8,}"
)
# Names, paths and sentences do not contain runs of 20 or more mixed letters and digits.
_LONG_RANDOM = r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20,}"
_SECRET = re.compile(rf"(?<![A-Za-z0-9])(?:{_KNOWN_FORMS}|{_LONG_RANDOM})")
_SECRET_NAME = re.compile(r"(?i)(^|_)(api_?key|key|token|secret|password|passwd|passphrase|credentials?)(_env)?$")


def redact(text: str) -> str:
    """The text with everything that looks like a key or a token replaced by `[hidden]`."""
    return _SECRET.sub(HIDDEN, text)


def names_a_secret(key: str) -> bool:
    """Whether a key, such as `api_key`, `hf_token` or `password`, usually has a secret as its value."""
    return _SECRET_NAME.search(key) is not None
