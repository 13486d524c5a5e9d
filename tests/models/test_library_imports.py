"""What importing the package's training code imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_models import SIZES_FOR_BITS, write_tiny_model

PROGRAM = """
import sys
import aligndistill.training.offline.policy
assert "peft" in sys.modules and "bitsandbytes" not in sys.modules
from aligndistill.config.models import Lora, Quantize
from aligndistill.models.load import ModelPointer, from_pretrained
from aligndistill.training.adapters import with_adapters
from transformers import AutoModelForCausalLM
pointer = ModelPointer(path=sys.argv[1], layout="chat", dtype="float32", quantize=Quantize(kind="nf4"))
adapted = with_adapters(from_pretrained(AutoModelForCausalLM, pointer), Lora(r=2), "CAUSAL_LM", 0)
wrapped = {type(module) for module in adapted.modules() if "lora" in type(module).__module__}
print(sorted(f"{one.__module__}.{one.__name__}" for one in wrapped))
"""


@pytest.mark.process
def test_bitsandbytes_is_imported_only_where_weights_are_quantised(tmp_path: Path) -> None:
    """And peft, which was imported without it, wraps its layers."""
    pytest.importorskip("bitsandbytes")
    write_tiny_model(tmp_path, **SIZES_FOR_BITS)
    ended = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, env={**os.environ})
    assert ended.returncode == 0, ended.stderr
    assert "'peft.tuners.lora.bnb.Linear4bit'" in ended.stdout
