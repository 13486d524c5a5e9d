"""llama.cpp's own server, from the package `xllamacpp`, with the tiny judge as a GGUF file."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gguf
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from tests.judges.tiny_judge import ALWAYS_THINKING_TEMPLATE, PAIRWISE, THINKING_TEMPLATE, build_tiny_judge

START_SECONDS = 60
CONTEXT_TOKENS, SLOTS = 1024, 4

# Its name for each tensor of transformers' Qwen2.
WHOLE_MODEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
OF_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}

SERVE = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.chat_template = sys.argv[1], open(sys.argv[2]).read()
params.n_ctx, params.n_parallel = int(sys.argv[3]), int(sys.argv[4])
params.kv_unified = False  # else one request may use the context of all
# By default both are computed in half precision, and log-probabilities differ by up to 0.01 nats from those in float32.
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.n_gpu_layers, params.warmup, params.use_jinja = 0, False, True
params.hostnames, params.port = ["127.0.0.1"], 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
while True:
    time.sleep(3600)
"""


def write_gguf(model_folder: Path, path: Path, chat_template: str) -> None:
    """A Qwen2 folder as a GGUF file in float32."""
    config = json.loads((model_folder / "config.json").read_text())
    # As transformers reads it, which for this architecture adds a token.
    tokenizer = json.loads(AutoTokenizer.from_pretrained(model_folder).backend_tokenizer.to_str())
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])

    ids = tokenizer["model"]["vocab"] | {one["content"]: one["id"] for one in tokenizer["added_tokens"]}
    special = {one["content"]: one["special"] for one in tokenizer["added_tokens"]}
    kinds = {None: gguf.TokenType.NORMAL, True: gguf.TokenType.CONTROL, False: gguf.TokenType.USER_DEFINED}
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds[special.get(token)] for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template)

    for name, tensor in load_file(model_folder / "model.safetensors").items():
        module, kind = name.rsplit(".", 1)
        if module.startswith("model.layers."):
            _, _, number, inner = module.split(".", 3)
            writer.add_tensor(f"blk.{number}.{OF_LAYER[inner]}.{kind}", tensor)
        else:
            writer.add_tensor(f"{WHOLE_MODEL[module]}.{kind}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def serve_llama(model_folder: Path, folder: Path, chat_template: str) -> Iterator[str]:
    """Serve a Qwen2 folder with this template, yielding the base URL once the server listens."""
    folder.mkdir()
    write_gguf(model_folder, folder / "model.gguf", chat_template)
    (folder / "template.jinja").write_text(chat_template)
    arguments = [folder / "model.gguf", folder / "template.jinja", CONTEXT_TOKENS * SLOTS, SLOTS]
    with (folder / "server.log").open("w+") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, *map(str, arguments)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert server.stdout is not None
            began = time.monotonic()
            while not (address := server.stdout.readline()).startswith("http"):
                if server.poll() is not None or time.monotonic() - began > START_SECONDS:
                    log.seek(0)
                    raise RuntimeError(f"llama.cpp's server did not start:\n{log.read()}")
            yield f"{address.strip()}/v1"
        finally:
            server.kill()
            server.wait()


@dataclass(frozen=True)
class LlamaServers:
    """Two servers of the tiny judge that thinks, which knows no other template than this one, a path.

    Attributes:
        model: its folder, in transformers' form.
        with_switch, without_switch: base URLs; the chat template of the second one always opens a block of thoughts.
    """

    model: Path
    pairwise_template: str
    with_switch: str
    without_switch: str


@contextmanager
def thinking_judge_servers(folder: Path) -> Iterator[LlamaServers]:
    """Train the tiny judge that thinks and serve it twice."""
    model = folder / "thinking-judge"
    build_tiny_judge(model, thinks=True)
    (folder / "pairwise.txt").write_text(PAIRWISE.text)
    with (
        serve_llama(model, folder / "with-switch", THINKING_TEMPLATE) as with_switch,
        serve_llama(model, folder / "without-switch", ALWAYS_THINKING_TEMPLATE) as without_switch,
    ):
        yield LlamaServers(model, str(folder / "pairwise.txt"), with_switch, without_switch)
