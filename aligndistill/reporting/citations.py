"""The papers of the objectives, for cards."""

from collections.abc import Iterator

PAPERS = {
    "dpo": ("2305.18290", "Direct Preference Optimization: Your Language Model is Secretly a Reward Model"),
    "simpo": ("2405.14734", "SimPO: Simple Preference Optimization with a Reference-Free Reward"),
    "cpo": ("2401.08417", "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation"),
    "orpo": ("2403.07691", "ORPO: Monolithic Preference Optimization without Reference Model"),
    "kto": ("2402.01306", "KTO: Model Alignment as Prospect Theoretic Optimization"),
    "sppo": ("2405.00675", "Self-Play Preference Optimization for Language Model Alignment"),
    "rrhf": ("2304.05302", "RRHF: Rank Responses to Align Language Models with Human Feedback without tears"),
    "pro": ("2306.17492", "Preference Ranking Optimization for Human Alignment"),
    "ppo": ("1707.06347", "Proximal Policy Optimization Algorithms"),
    "grpo": ("2402.03300", "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models"),
    "rloo": ("2402.14740", "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs"),
    "distil": ("1503.02531", "Distilling the Knowledge in a Neural Network"),
    "on_policy_distil": ("2306.13649", "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes"),
}
"""Objective -> arXiv id and title. Best-of-n has no paper of its own."""
LORA = ("2106.09685", "LoRA: Low-Rank Adaptation of Large Language Models")


def citations(objective: str, adapters: bool) -> Iterator[str]:
    """Lines of Markdown."""
    papers = [*([PAPERS[objective]] if objective in PAPERS else []), *([LORA] if adapters else [])]
    for identity, title in papers:
        yield f"- {title}, [arXiv:{identity}](https://arxiv.org/abs/{identity})"
