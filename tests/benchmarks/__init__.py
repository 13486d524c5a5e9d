"""Collected before all other tests: what they import must not bring bitsandbytes, and with it torch's compiler, to all of them."""

from aligndistill.models.library_imports import import_peft

import_peft()
