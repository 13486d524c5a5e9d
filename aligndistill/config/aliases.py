"""What keys of other tools (transformers, TRL, LLaMA-Factory, OpenRLHF, verl, vLLM) are called here."""

from collections.abc import Iterable

# Our key or keys: the names that users of other tools know it by.
_OTHER_NAMES: dict[tuple[str, ...], Iterable[str]] = {
    # training
    ("learning_rate",): ("lr", "actor_learning_rate", "actor_lr", "policy_lr", "max_lr"),
    ("batch_size",): ("train_batch_size", "global_batch_size", "bs", "effective_batch_size"),
    ("num_train_epochs",): ("epochs", "num_epochs", "n_epochs", "max_epochs", "total_epochs", "epoch"),
    ("max_steps",): ("steps", "num_steps", "max_train_steps", "total_steps", "num_training_steps"),
    ("warmup_ratio",): ("warmup", "warmup_steps", "lr_warmup_ratio", "num_warmup_steps"),
    ("lr_scheduler_type",): ("scheduler", "lr_scheduler", "scheduler_type"),
    ("weight_decay",): ("wd", "l2"),
    ("max_grad_norm",): ("max_norm", "gradient_clipping", "grad_clip", "clip_grad_norm"),
    ("max_prompt_tokens",): ("max_prompt_length", "prompt_max_len", "max_source_length", "prompt_length"),
    ("max_response_tokens",): (
        "max_completion_length",
        "generate_max_len",
        "max_response_length",
        "response_length",
        "max_new_tokens",
    ),
    ("max_prompt_tokens", "max_response_tokens"): ("max_length", "max_len", "cutoff_len", "max_seq_length", "max_seq_len"),
    ("max_new_tokens", "max_response_tokens"): ("max_tokens",),
    # adapters and models
    ("r",): ("rank", "lora_r", "lora_rank"),
    ("lora_alpha",): ("alpha",),
    ("lora_dropout",): ("dropout",),
    ("target_modules",): ("lora_target", "lora_target_modules", "target", "targets"),
    ("model", "name"): ("model_name_or_path", "model_name", "name_or_path", "model_path", "pretrain", "pretrained", "base_model"),
    ("dtype",): ("torch_dtype", "precision"),
    ("attn_implementation",): ("flash_attn", "attention"),
    ("revision",): ("commit", "model_revision"),
    ("licence",): ("license",),
    # servers
    ("base_url",): ("url", "api_base", "endpoint", "openai_api_base", "base"),
    ("concurrency",): ("workers", "num_workers", "max_concurrency", "max_concurrent_requests", "n_parallel"),
    ("timeout_seconds",): ("timeout",),
    ("max_retries",): ("retries",),
    ("requests_per_minute",): ("rpm",),
    ("tokens_per_minute",): ("tpm",),
    ("context_tokens",): ("max_model_len", "n_ctx", "context_length"),
    ("thinking",): ("enable_thinking",),
    ("chat_template",): ("template",),
    ("template_arguments",): ("chat_template_kwargs",),
    ("body",): ("extra_body",),
    # objectives
    ("beta",): ("pref_beta", "dpo_beta"),
    ("loss",): ("loss_type", "pref_loss", "dpo_loss"),
    ("labels",): ("label_type",),
    ("sft_weight",): ("rpo_alpha", "pref_ftx", "nll_loss_coef", "rrhf_weight", "cpo_alpha"),
    ("odds_weight",): ("orpo_alpha", "orpo_lambda"),
    ("desirable_weight",): ("kto_chosen_weight",),
    ("undesirable_weight",): ("kto_rejected_weight",),
    ("kl_coefficient",): ("beta", "kl_coef", "init_kl_coef", "kl_coeff", "kl_beta", "kl_penalty"),
    ("kl_target",): ("target_kl", "target"),
    ("kl_horizon",): ("horizon",),
    ("clip_range",): ("cliprange", "clip_eps", "eps_clip", "clip_ratio", "epsilon"),
    ("value_clip_range",): ("cliprange_value", "value_clip"),
    ("value_coefficient",): ("vf_coef", "value_loss_coef"),
    ("entropy_coefficient",): ("entropy_coef", "ent_coef", "entropy_coeff"),
    ("gae_lambda",): ("lam", "lambd", "lambda"),
    ("ppo_epochs",): ("num_ppo_epochs", "update_epochs"),
    ("minibatches",): ("num_mini_batches", "num_minibatches"),
    ("samples_per_prompt", "per_prompt"): (
        "num_generations",
        "n_samples_per_prompt",
        "num_return_sequences",
        "rollout_n",
        "n",
        "n_samples",
    ),
    ("critic_learning_rate",): ("critic_lr", "value_lr"),
    ("reward_clip",): ("reward_clip_range", "cliprange_reward"),
    ("normalise_rewards",): ("normalize_rewards", "normalize_reward"),
    ("whiten_advantages",): ("normalize_advantages",),
    ("reward",): ("reward_pretrain", "reward_model_path", "reward_funcs", "reward_func"),
    # data
    ("source",): ("dataset", "dataset_name", "data"),
    ("path",): ("file", "data_path", "dataset_path", "filename"),
    ("held_out",): ("val_size", "test_size", "validation_split", "eval_ratio", "test_ratio"),
    ("limit",): ("max_samples", "num_rows", "max_rows"),
    ("name",): ("subset", "config_name"),
    ("columns",): ("input_key", "prompt_key", "chosen_key", "rejected_key", "column_mapping"),
    # judges and evaluation
    ("template",): ("prompt_template",),
    ("lowest",): ("min_score",),
    ("highest",): ("max_score",),
    ("both_orders",): ("swap", "swap_positions"),
    ("examples",): ("few_shot", "shots"),
    ("reasoning",): ("cot", "chain_of_thought"),
    ("truth",): ("ground_truth", "checker"),
    # where and how fast
    ("runs",): ("output_dir", "run_dir"),
    ("store",): ("cache_dir",),
    ("deepspeed",): ("deepspeed_config", "ds_config"),
    ("processes",): ("num_processes", "num_gpus", "n_gpus", "nproc_per_node"),
    ("per_device_train_batch_size",): ("micro_train_batch_size", "micro_batch_size", "per_device_batch_size"),
    ("per_device_eval_batch_size",): ("eval_batch_size",),
    ("gradient_checkpointing",): ("activation_checkpointing",),
    ("save_steps",): ("save_interval", "save_every"),
    ("logging_steps",): ("log_steps", "log_interval"),
    ("report_to",): ("logger", "loggers", "tracker", "use_wandb"),
    # sections
    ("start",): ("student", "policy", "actor"),
    ("students",): ("objectives", "trainers"),
    ("candidates",): ("sampling", "generation"),
    ("reward_model",): ("rm",),
}

OUR_NAMES: dict[str, tuple[str, ...]] = {}
"""Another tool's key: ours, which are looked for in the section first and then elsewhere."""
for _ours, _others in _OTHER_NAMES.items():
    for _other in _others:
        OUR_NAMES[_other] = (*OUR_NAMES.get(_other, ()), *_ours)

NO_SUCH_KEY = {
    "gradient_accumulation_steps": "it follows from batch_size, runtime.per_device_train_batch_size and the number of processes",
    "bf16": "training uses bfloat16 where the GPU supports it; `dtype` is that of a model's weights",
    "fp16": "training uses bfloat16 where the GPU supports it; `dtype` is that of a model's weights",
    "optim": "training uses AdamW",
    "optimizer": "training uses AdamW",
    "top_p": "answers are sampled from the whole distribution, by temperature alone",
    "ref_model": "the reference is always the start",
    "reference_model": "the reference is always the start",
    "simpo_gamma": "give gamma_beta_ratio, which is gamma divided by beta",
    "load_in_4bit": "give `quantize: nf4` in 'start'",
    "load_in_8bit": "give `quantize: int8` in 'start'",
    "quantization_bit": "give `quantize: nf4` or `quantize: int8` in 'start'",
    "use_peft": "start.lora trains adapters",
    "use_lora": "start.lora trains adapters",
    "finetuning_type": "start.lora trains adapters",
    "do_train": "the config's sections decide what runs",
    "stage": "the config's sections decide what runs",
}
"""Keys of other tools that have no counterpart, and why."""
