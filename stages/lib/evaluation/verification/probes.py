"""Texts that two tokenizers easily split differently: scripts, numbers, white space, control tokens spelled out."""

from itertools import product

TEXTS = (
    # Languages and scripts
    "I have had a fever for three days.",
    "Grüße, naïve café",
    "¿Qué puedo tomar para la tos?",
    "J'ai mal à la tête.",
    "У меня болит голова уже неделю.",
    "Μου πονάει το στομάχι.",
    "أشعر بألم في صدري",
    "כואב לי הראש",
    "سرم درد می‌کند",
    "头痛三天了,还发烧。",
    "頭が痛いです。",
    "머리가 아파요.",
    "ฉันปวดหัวมาก",
    "मुझे बुखार है।",
    "আমার জ্বর হয়েছে",
    "எனக்கு காய்ச்சல்",
    "Tôi bị đau đầu.",
    "Başım çok ağrıyor, ıİ",
    "Żółć, gęś, jaźń",
    "Þetta er sárt.",
    "ẞß ﬁ ﬂ Ǆ",
    "é é ñ ñ",
    # Emoji, symbols, combinations
    "🤒🤕👩‍⚕️ ok",
    "👨‍👩‍👧‍👦 🇩🇪🏳️‍🌈",
    "❤️‍🩹 ☠︎",
    "→ ≤ ± µg √2 ½ ™ ©",
    "a̐éö̲ Z͑ͫ̓ͪ̂ͫ̽͏̴̙",
    "\u200bzero\u200dwidth\ufeff",
    "…—–-==>>!!??",
    # Numbers and units
    "39.5°C 120/80 1234567",
    "1 12 123 1234 12345 1,234.56",
    "5mg/kg q8h x10d",
    "2024-01-31T23:59:59Z",
    "+1 (555) 010-9999",
    "0x7fff 1e-10 ٣٤٥ 三百",
    "HbA1c 7.2% (55 mmol/mol)",
    "T4N1M0, G2P1, SpO2",
    # White space
    "a  b   c    d",
    "tab\tand\t\ttabs",
    "one\ntwo\n\nthree\n\n\nfour",
    "ends with spaces  \n  begins",
    "\r\nwindows\r\nlines",
    "nbsp\u00a0thin\u2009em\u2003ideographic\u3000",
    "a \n b \t c\n\t d",
    "x \n\n\n   y",
    # Long words, case, contractions, code
    "x" * 200,
    "ab" * 150,
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 3,
    "ACETAMINOPHENandIBUPROFEN",
    "I've WE'LL don't DON'T",
    "it’s they‘re",
    "user_name@example.com https://example.org/a?b=c&d=%20",
    "{'json': [1, 2, {\"a\": null}]}",
    "<b>html</b> &amp; &#39;",
    "def f(x):\n    return x\n",
    "$$\\frac{a}{b}$$",
    "a.b.c...d....e",
    "###\n---\n***",
    "",
)
AROUND = ("{}", "He wrote {} to me.")


def strings(control_tokens: list[str]) -> list[str]:
    """The texts, and every spelling of a control token inside a patient's text: plain text, all of it."""
    return [*TEXTS, *(around.format(token) for token, around in product(control_tokens, AROUND))]
