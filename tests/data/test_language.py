import pytest

from aligndistill.config.filters import Language
from aligndistill.data.language import LANGUAGES, language_of

TEXTS: dict[Language | None, list[str]] = {
    "en": [
        "What is the capital of France?",
        "Write a poem about the sea in three lines.",
        "Explain how photosynthesis works to a child.",
    ],
    "de": [
        "Was ist die Hauptstadt von Frankreich?",
        "Schreibe ein Gedicht über das Meer in drei Zeilen.",
        "Erkläre einem Kind, wie Photosynthese funktioniert und was sie bewirkt.",
    ],
    "fr": [
        "Quelle est la capitale de la France ?",
        "Écris un poème sur la mer en trois lignes.",
        "Explique à un enfant comment fonctionne la photosynthèse dans les plantes.",
    ],
    "es": [
        "¿Cuál es la capital de Francia?",
        "Escribe un poema sobre el mar en tres líneas.",
        "Explica a un niño cómo funciona la fotosíntesis en las plantas.",
    ],
    "it": [
        "Qual è la capitale della Francia?",
        "Scrivi una poesia sul mare in tre righe per un bambino che non lo ha visto.",
        "Spiega come funziona la fotosintesi e cosa succede nelle foglie.",
    ],
    "pt": [
        "Qual é a capital da França?",
        "Escreva um poema sobre o mar em três linhas.",
        "Explique para uma criança como a fotossíntese funciona.",
    ],
    "nl": [
        "Wat is de hoofdstad van Frankrijk?",
        "Schrijf een gedicht over de zee in drie regels.",
        "Leg aan een kind uit hoe fotosynthese werkt en wat het doet.",
    ],
    "sv": [
        "Vad är huvudstaden i Frankrike?",
        "Skriv en dikt om havet på tre rader för ett barn som inte har sett det.",
        "Förklara hur fotosyntesen fungerar och varför den är viktig.",
    ],
    "pl": [
        "Jakie jest największe miasto we Francji i co się w nim znajduje?",
        "Napisz wiersz o morzu w trzech wersach dla dziecka, które nie widziało morza.",
        "Wyjaśnij, jak działa fotosynteza i dlaczego jest ważna.",
    ],
    "ru": [
        "Какой город является столицей Франции и что в нём находится?",
        "Напиши стихотворение о море в трёх строках для ребёнка.",
        "Объясни, как работает фотосинтез и почему это важно.",
    ],
    "uk": ["Яке місто є столицею Франції?", "Напиши вірш про море в трьох рядках.", "Поясни, як працює фотосинтез."],
    "zh": ["法国的首都是哪里？", "用三行写一首关于大海的诗。", "请用 Python 写一个函数 sort_list(x)"],
    "ja": ["フランスの首都はどこですか？", "海についての詩を三行で書いてください。", "東京タワーの高さは？"],
    "ko": ["프랑스의 수도는 어디입니까?"],
    "th": ["เมืองหลวงของฝรั่งเศสคืออะไร"],
    "ar": ["ما هي عاصمة فرنسا؟"],
    "fa": ["پایتخت فرانسه چیست و چگونه می\u200cتوان آن را دید؟"],
    "he": ["מהי בירת צרפת?"],
    "hi": ["फ्रांस की राजधानी क्या है?"],
    "el": ["Ποια είναι η πρωτεύουσα της Γαλλίας;"],
    "tr": ["Fransa'nın başkenti nedir ve nasıl bir şehir?"],
    "vi": ["Thủ đô của nước Pháp là gì và có những gì?"],
    "id": ["Apa ibu kota dari negara Prancis dan bagaimana cuaca di sana?"],
    None: [
        "def f(x):\n    return x * 2",
        "SELECT name FROM users WHERE id = 3;",
        "Paris",
        "123 + 456",
        "Albert Einstein biography",
        "😀",
    ],
}


@pytest.mark.parametrize(("language", "text"), [(language, text) for language, texts in TEXTS.items() for text in texts])
def test_the_language_of_prompts(language: Language | None, text: str) -> None:
    assert language_of(text) == language


def test_every_language_is_found_in_its_frequent_words() -> None:
    from aligndistill.data import language

    for code, words in language._WORDS.items():
        assert code in LANGUAGES
        assert language_of(words) == code
