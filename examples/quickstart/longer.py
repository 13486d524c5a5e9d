"""A judge that is wrong on purpose: the longer answer is the better one. What the length rule of rounds is for."""


def grade(_prompt: str, responses: list[str]) -> list[float]:
    """The number of words of each response."""
    return [float(len(response.split())) for response in responses]
