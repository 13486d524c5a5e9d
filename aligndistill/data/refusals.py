"""Answers that decline, known by how they begin."""

import re

_REFUSAL = re.compile(
    r"^\W*(?:(?:i'?m|i am) (?:very |really |so |truly )?sorry[,.]? ?(?:but )?(?:i|as)\b|sorry[,.]? (?:but )?(?:i|as)\b"
    r"|(?:unfortunately,? )?i ?(?:can'?t|cannot|can not|won'?t|will not|am (?:not able|unable) to|'?m (?:not able|unable) to"
    r"|am not comfortable|'?m not comfortable) (?:help|assist|provide|fulfil|comply|answer|do|create|write|generate|support|engage"
    r"|discuss|give|offer|participate)"
    r"|i (?:must|have to) (?:decline|refuse)|as an? (?:ai|artificial intelligence|(?:large )?language model)\b.{0,60}"
    r"\b(?:can'?t|cannot|unable|not able|don'?t|do not|have no|won'?t)\b"
    r"|(?:很|非常)?(?:抱歉|对不起|對不起)[,，。]?.{0,8}(?:我|无法|無法|不能)|我(?:无法|無法|不能)(?:提供|协助|協助|回答|帮助|幫助|满足|完成)"
    r"|(?:申し訳(?:ありません|ございません)|すみません|ごめんなさい).{0,20}(?:できません|お答え|お手伝い|いたしかねます)|申し訳(?:ありません|ございません)。?\s*$"
    r"|(?:es tut mir leid|tut mir leid|je suis désolé|lo siento|mi dispiace|sinto muito)[,.]? )",
)
_LONGEST_BEGINNING = 300


def is_refusal(text: str) -> bool:
    """Whether a text begins as an answer that declines, in English, Chinese, Japanese and some European languages."""
    return _REFUSAL.match(plain(text[:_LONGEST_BEGINNING])) is not None


def plain(text: str) -> str:
    """A text in small letters and with plain apostrophes: searching regardless of case is slower."""
    return text.lower().replace("\u2019", "'")
