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
from aligndistill.config.models import Lora, Quantize
from aligndistill.models.load import ModelPointer, from_pretrained
from aligndistill.training.adapters import with_adapters
from transformers import AutoModelForCausalLM

def wrapped(**settings):
    pointer = ModelPointer(path=sys.argv[1], layout="chat", dtype="float32", **settings)
    adapted = with_adapters(from_pretrained(AutoModelForCausalLM, pointer), Lora(r=2), "CAUSAL_LM", 0)
    return sorted({type(one).__module__ + "." + type(one).__name__ for one in adapted.modules() if hasattr(one, "lora_A")})

print(wrapped(), "peft" in sys.modules, "bitsandbytes" in sys.modules)
print(wrapped(quantize=Quantize(kind="nf4")), "bitsandbytes" in sys.modules)
print(wrapped())
"""


@pytest.mark.process
def test_bitsandbytes_is_imported_only_where_weights_are_quantised(tmp_path: Path) -> None:
    """Adapters on whole weights do without it. It sees no `kernels`, with which it downloads code, and peft wraps its layers."""
    pytest.importorskip("bitsandbytes")
    write_tiny_model(tmp_path / "model", **SIZES_FOR_BITS)
    downloads = tmp_path / "downloads"
    (tmp_path / "kernels.py").write_text(f"def get_kernel(*names, **options):\n    open({str(downloads)!r}, 'w').close()\n")
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "['peft.tuners.lora.layer.Linear'] True False",
        "['peft.tuners.lora.bnb.Linear4bit'] True",
        "['peft.tuners.lora.layer.Linear']",
    ]
    assert not downloads.exists()
