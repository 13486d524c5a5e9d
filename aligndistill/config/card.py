"""What a model's or data set's card says that no run can know."""

import difflib
import re
from typing import Self

from pydantic import field_validator, model_validator

from aligndistill.config.section import Section

_LISTED = (
    "afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 "
    "bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 "
    "cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 "
    "cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 "
    "fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 "
    "lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 "
    "openrail openrail++ osl-3.0 other pddl postgresql unlicense wtfpl zlib"
)
HUB_LICENSES = frozenset(_LISTED.split())
"""The identifiers of licences that the Hugging Face Hub lists; every other licence is `other` with a name and a link."""


class Card(Section):
    """What cards say of whatever this run publishes. It decides nothing that is computed.

    Attributes:
        license: the licence of what is published, as the Hub spells it, such as `apache-2.0`; `other` needs `license_name`.
        license_name, license_link: of a licence that the Hub does not list.
        language: codes of the languages, such as `en`.
        pretty_name: of the data set.
        personal_data: what is known of personal data in the prompts and answers.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: tuple[str, ...] = ()
    pretty_name: str | None = None
    personal_data: str | None = None

    @field_validator("license")
    @classmethod
    def _is_listed(cls, value: str | None) -> str | None:
        if value is not None and value not in HUB_LICENSES:
            raise ValueError(
                f"'{value}' is no identifier of a licence on the Hub{_near(value)}; of a licence that it does not list write "
                "license: other, with license_name and license_link"
            )
        return value

    @field_validator("language")
    @classmethod
    def _are_codes(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [value for value in values if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z]{2,4})?", value)]:
            raise ValueError(f"'{wrong[0]}' is no code of a language, such as en or zh-Hans")
        return values

    @model_validator(mode="after")
    def _other_has_a_name(self) -> Self:
        if self.license == "other" and not self.license_name:
            raise ValueError("license: other needs 'license_name'")
        if self.license != "other" and (self.license_name or self.license_link):
            raise ValueError("'license_name' and 'license_link' belong to license: other")
        return self


def _near(license: str) -> str:
    close = difflib.get_close_matches(license.lower(), HUB_LICENSES, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
