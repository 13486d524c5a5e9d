"""Fields of a config whose values may be paths."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from aligndistill.config.paths import at_home

HomePath = Annotated[Path, AfterValidator(at_home)]
"""A path whose fingerprint does not depend on it."""

HomeText = Annotated[str, AfterValidator(os.path.expanduser)]
"""A name that may be a path. Paths that are hashed as they were written, such as those of data, are expanded when they are read
instead.
"""
