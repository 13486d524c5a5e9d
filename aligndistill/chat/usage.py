"""Adding up what calls cost."""

from aligndistill.records import Usage


def total(*usages: Usage) -> Usage:
    """The sum of what several calls cost."""
    return Usage(
        calls=sum(usage.calls for usage in usages),
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )
