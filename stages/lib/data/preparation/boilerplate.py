r"""What answers on consultation sites begin and end with, cut off: greetings, thanks, wishes, signatures.

Each pattern has a name, by which conf/data/prepare.yaml switches it on. Case is ignored. An apostrophe is written `.`
or `\W`, since answers spell it in many ways.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache

from stages.lib.core.checks import one_of

REACH = 240  # characters at the end of an answer that the closing patterns are tried on
MOST = 30  # pieces that are cut off either end, so that a text of nothing else costs little
LEFT_OVER = re.compile(r"[\s,;:–-]+\Z")  # what stood between the answer and its closing

# Parts that several patterns share.
CHAT_DOCTOR = "chat ?doctor"  # what the data set's anonymisation made of every doctor's name
TITLE = r"(?:dr\.?\s*)?"
SPECIALTY = r"(?:md|mbbs|\w{4,20}(?:logist|ician))"  # "MD", "Cardiologist", "Physician"
SITES = (
    rf"{CHAT_DOCTOR}|health ?care ?magic|icliniq(?:\.com)?|hcm|ask a doctor"
    r"|forum|site|portal|service|platform"
)
QUESTIONS = r"quer(?:y|ies)|questions?|concerns?"
# The rest of a polite sentence, made of nothing else: " using our valuable service today".
POLITE = (
    r"(?:[ ,]+(?:to|at|in|on|with|for|from|of|us|me|your|the|our|here|and|this|a"
    rf"|health|valuable|{QUESTIONS}"
    r"|trust(?:ing)?|using|choosing|posting|asking|writing|contacting|consult(?:ing|ation)?"
    rf"|doctor|today|again|{SITES}))*"
)
NO_DECIMAL = r"(?!(?-i:[a-z\d]))"  # behind a full stop: it is not the one of "9.87" or "example.com"
IN_SENTENCE = r"(?:[^.!?\n]|\.(?=(?-i:[a-z\d])))"  # one character of a sentence, which "9.87" does not end
SENTENCE_START = r"(?:^|(?<=[.!?\n] )|(?<=[.!?\n]))\s*"
SENTENCE_END = r"[.!]*\s*"

# A greeting with its punctuation: "Hi dear, ", "Hello Mrs. Smith - ", "Good morning doctor. "
GREETING = (
    r"(?:hi|hello|hey|hai|dear|namaste|greetings|respected|good (?:day|morning|afternoon|evening))\b"
    r"(?:[ ,]+(?:doctor|dear|friend|user|there|sir|madam|ma.?am|mam|patient|member|all|and|hi|hello"
    r"|mrs?\.? \w+|ms\.? \w+))*"
    r"\s*(?:[,.!:]+|\s-+)\s*"
)
# A greeting without any, where a word follows that begins a sentence: "Hello dear " of "Hello dear I have ..."
BARE_GREETING = (
    r"(?:hi|hello|hey|dear)(?: dear| there)?\s+"
    r"(?=(?:thank|welcome|i |you|the |it |this|as |your|in |for |from |after|since|if |we ))"
)
# A welcome: "You are most welcome. ", "Welcome back to Chat Doctor forum, "
WELCOME = (
    r"(?:and )?(?:you are )?(?:most )?(?:warmly )?welcome"
    r"(?:\s*[,.!]+\s*"
    rf"|(?: back)? to (?:the |our |this )?\W?(?:{SITES})\b\W?{POLITE}\s*[.,!]+\s*)"
)
# Thanks for the question or the visit: "Thank you very much for posting your query. "
THANKS = (
    r"(?:and )?(?:many |a lot of )?(?:thanks|thank ?you|thanx)(?: very much| so much| a lot)?(?: for| to)\b"
    rf"{POLITE}\s*[.!]+{NO_DECIMAL}\s*"
)
# That the question was read: "I have gone through your query carefully. ", "I understand your concern, "
READ = (
    r"(?:and )?(?:i|we)(?: have|\Wve|ve| had| can)?(?: just| carefully| thoroughly)* "
    r"(?:gone through|went through|go through|read|reviewed|studied|noted|understand|appreciate)"
    r"(?: carefully| through| and understood?| and appreciate)*"
    r"(?:[ ,]+(?:and|all|carefully|thoroughly|completely|well|with|diligence|it|in|detail|details|understood?|can"
    rf"|your|the|medical|posted|provided|above|{QUESTIONS}"
    r"|worr(?:y|ies)|problems?|history|case|message|description|situation))+"
    rf"\s*(?:[.!]+{NO_DECIMAL}\s*|,\s*)"
)
# Who answers: "I am Chat Doctor. ", "My name is Dr. Chat Doctor and "
INTRODUCTION = rf"(?:i am|i.m|this is|my name is) {TITLE}{CHAT_DOCTOR}\b(?: here)?(?: and\b)?\s*[.,!]*\s*"
# A heading of the site's form: "Brief Answer: "
BRIEF_ANSWER = r"brief answer\s*:\s*"

# A last sentence of good wishes: " Hope this answers your question.", " I wish you good health."
HOPE = (
    rf"{SENTENCE_START}(?:i |we )?(?:do )?(?:hope|wish)\b"
    rf"(?={IN_SENTENCE}{{0,140}}\b(?:help(?:s|ed|ful)?|answer(?:s|ed)?|useful|satisf\w*|clarif\w*|resolve[sd]?"
    r"|informative|good health|healthy life|recovery|get well|feel better|the best)\b)"
    rf"{IN_SENTENCE}{{0,140}}{SENTENCE_END}"
)
# A last sentence that invites to ask again: each of these, and what follows it.
ASK_AGAIN = (  # "Please do not hesitate to ask ..."
    r"(?:please |kindly )?(?:(?:do not|don.?t) hesitate|feel free)"
    r" to (?:ask|write|contact|get back|reach|post|revert|come back)"
)
LET_ME_KNOW = (  # "Let me know if you have any further questions ..."
    r"(?:please )?let me know if (?:i can|(?:you have|there are) (?:any |more |further |other )*(?:quer|question|doubt)"
    r"|there is anything|you need (?:any |more |further )*(?:help|assist|clarif|information))"
)
FOR_MORE = (  # "For more information consult ..."
    r"(?:for|if you have|in case of) (?:any )?(?:more|further|other|additional)"
    r" (?:quer\w*|questions?|doubts?|information|clarifications?),?"
    r" (?:please|kindly|consult|contact|write|ask|get back|do not|don.?t|feel|let|i |you can|revert)"
)
REVERT_BACK = rf"revert back\b{IN_SENTENCE}{{0,120}}\bonline"  # "Revert back with the photos to a doctor online ..."
HAPPY_TO_HELP = r"(?:i|we)(?: wi|\W)ll be (?:happy|glad|available) to (?:help|answer|assist)"
FURTHER = (
    rf"{SENTENCE_START}(?:{ASK_AGAIN}|{LET_ME_KNOW}|{FOR_MORE}|{REVERT_BACK}|{HAPPY_TO_HELP})"
    rf"{IN_SENTENCE}{{0,120}}{SENTENCE_END}"
)
# Closing formulas with a signature or none: " Take care. Best regards, Dr. Chat Doctor, MD"
FORMULA = (
    r"(?:(?:with |warm |best |kind |many )*(?:regards|wishes)"
    r"|thanks(?: again)?(?: and regards)?|thank you(?: again| so much| very much)?"
    r"|take care|all the best|have a (?:good|nice|great) day"
    r"|(?:wish(?:ing)? you )?(?:a )?(?:good|best of) (?:luck|health|day)"
    r"|get well soon|god bless(?: you)?|yours (?:sincerely|truly|faithfully)|sincerely)"
)
REGARDS = (
    rf"(?:^|(?<=[.!?\n,] )|(?<=[.!?\n,]))\s*(?:{FORMULA}[\s,.!-]*)+"
    rf"{TITLE}(?:{CHAT_DOCTOR})?(?:[\s,.]*{SPECIALTY})?[\s.!]*"
)
# A signature alone: " - Dr. Chat Doctor, Cardiologist", ", I am Chat Doctor."
SIGNATURE = (
    rf"[\s,-]*\b(?:(?:i am|i.m|this is) )?{TITLE}{CHAT_DOCTOR}"
    rf"(?:[\s,.]+{SPECIALTY})?[\s.,!]*"
)

OPENINGS = {  # of an answer
    "greeting": GREETING,
    "bare_greeting": BARE_GREETING,
    "welcome": WELCOME,
    "thanks": THANKS,
    "read": READ,
    "introduction": INTRODUCTION,
    "brief_answer": BRIEF_ANSWER,
}
CLOSINGS = {  # of an answer: they reach its end
    "hope": HOPE,
    "further": FURTHER,
    "regards": REGARDS,
    "chat_doctor": SIGNATURE,
}
CLOSING_WORDS = {  # one of which each closing has: to look for them is much quicker than to try the pattern
    "hope": ("hope", "wish"),
    "further": (
        *("hesitate", "feel free", "let me know", "revert back", "ll be ", "if you have", "in case of"),
        *("for more", "for further", "for any", "for other", "for additional"),
    ),
    "regards": (
        *("regards", "wishes", "thank", "take care", "all the best", "have a ", "best of", "good luck", "good health"),
        *("good day", "get well soon", "god bless", "yours ", "sincerely"),
    ),
    "chat_doctor": ("chat doctor", "chatdoctor"),
}
NAMES = (*OPENINGS, *CLOSINGS)


def require_known(names: list[str]) -> None:
    """Raise UserError where a name of `data.prepare.boilerplate` is none of NAMES."""
    for name in names:
        one_of("data.prepare.boilerplate", name, NAMES)


def strip_boilerplate(answer: str, names: list[str]) -> tuple[str, list[str]]:
    """The answer without its opening and closing boilerplate, and the names of the patterns that fitted.

    Each pattern is tried again, since a greeting, thanks and "I have read your query" follow one another in any
    order. Where an opening went, the rest begins with a capital. Raises UserError for an unknown name.
    """
    opening, closing = _compiled(tuple(names))
    left = answer
    opened: list[str] = []
    closed: list[str] = []
    while len(opened) < MOST and (fit := _first((name, p.match(left)) for name, p in opening)):
        left = left[fit[1].end() :]
        opened.append(fit[0])
    if opened and left[1:2].islower():
        left = left[:1].upper() + left[1:]
    while len(closed) < MOST and (fit := _first(_closings(left[-REACH:], closing))):
        left = LEFT_OVER.sub("", left[: len(left) - len(fit[1].group())])
        closed.append(fit[0])
    return left.strip(), opened + closed


Named = list[tuple[str, re.Pattern[str]]]


def _closings(end: str, closing: Named) -> Iterator[tuple[str, re.Match[str] | None]]:
    """The closing patterns that may fit the end of an answer, each with its match."""
    small = end.lower()
    return ((name, p.search(end)) for name, p in closing if any(word in small for word in CLOSING_WORDS[name]))


def _first(tried: Iterable[tuple[str, re.Match[str] | None]]) -> tuple[str, re.Match[str]] | None:
    """The first pattern that matches some text, with its match."""
    return next(((name, match) for name, match in tried if match and match.group()), None)


@cache
def _compiled(names: tuple[str, ...]) -> tuple[Named, Named]:
    """The opening and the closing patterns of these names, in their order; raises UserError for an unknown one."""
    require_known(list(names))
    opening = [(name, re.compile(OPENINGS[name], re.IGNORECASE)) for name in names if name in OPENINGS]
    closing = [(name, re.compile(rf"(?:{CLOSINGS[name]})\Z", re.IGNORECASE)) for name in names if name in CLOSINGS]
    return opening, closing
