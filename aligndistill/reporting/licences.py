"""Licences that do not go together, as warnings: what was built on, and under which licence the result is published."""

from collections.abc import Iterator

from aligndistill.reporting.provenance import UNKNOWN, Origins

_PERMISSIVE = (
    "afl-3.0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc0-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 isc mit ncsa odc-by pddl postgresql unlicense wtfpl zlib"
)
PERMISSIVE = frozenset(_PERMISSIVE.split())
"""Licences that allow the result to be under another one, if they are named."""


def licence_warnings(license: str | None, origins: Origins, base: str | None) -> Iterator[str]:
    """What to look at before something under this licence is published. None of it is legal advice.

    Args:
        license: as the Hub spells it.
        base: the name, in the config, of the model that the result was trained from; None for data.
    """
    under = license or "no licence"
    for model in origins.models:
        if model.model == "from scratch":
            continue
        role = f"the base model {model.model}" if model.name == base else f"{model.model} ({model.name})"
        if model.name == base and model.licence == UNKNOWN:
            yield f"the licence of {role} is not known: give 'licence' under '{model.name}' in the config."
        elif model.name == base and model.licence != license and model.licence.lower() not in PERMISSIVE:
            yield f"{role} is under {model.licence}, and this is published under {under}."
        elif model.name != base and model.outputs_may_train == "no":
            yield f"the outputs of {role} may not train other models, as the config says, and this learned from them."
        elif model.name != base and model.outputs_may_train == UNKNOWN:
            yield (
                f"it is not known whether the outputs of {role} may train other models: "
                f"give 'outputs_may_train' under '{model.name}' in the config."
            )
    for data in origins.data:
        if data.licence == UNKNOWN:
            yield f"the licence of the data {data.data} ({data.key}) is not known: give 'licence' under '{data.key}' in the config."
        elif data.licence != license and data.licence.lower() not in PERMISSIVE:
            yield f"the data {data.data} ({data.key}) is under {data.licence}, and this is published under {under}."
