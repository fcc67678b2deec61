"""Personal data in a dialogue, masked: e-mail addresses, phone numbers, URLs, names of doctors and patients.

Every pattern is tried only behind a cheap test, and each repeat is bounded or begins where its run begins: linear time.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

# Words that stand where a name might: behind "Dr.", a greeting or a closing, and at the start of the next sentence.
NO_NAME_WORDS = """
a about above advised african after again age aged all allergic almost already also always am an and another any anybody
anyone anything anyway apt april are as asian ask asked at august baby back be because been before best black bless
blood british but by bye call called can cannot care chat check child come common consult consultant could ct dad
daughter day dear december dermatologist diagnosed did do doc docs doctor doctors does doesn done dont dr drs early ecg
either else even evening every everybody everyone everything father february feel female finally find first follow
following for found friday friend friends from gave general get give given go god good got gp great greetings had half
happy has have having hcm he healthcaremagic hello help her here hey hi him hindu his hiv hope hospital how however i if
im in indian is it its january july june just kind kindly know last let like little lot love luck ma maam madam made
make male mam man many march may maybe mbbs md me medical medication medicine member men met miss mom monday more most
mother mr mri mrs ms much mum muslim must my need needs neurologist never new next no nobody none nor normal not nothing
november now nurse october of off office often ok okay old on once one online only or ordered other our out over pain
parent parents patient people physician please pls plz pregnant prescribed probably prof put questioner read really
recently recommended referred regard regarding regards reply report reports respected said saturday saw say says see
september she should since sincerely sir so some someone something sometimes soon specialist started still stop
suffering suggest suggested sunday surgeon surgery tablet tablets take taken team tell tests thank thanks that the their
them then there these they think thinks this though thought thursday till time to today told too took treatment tried
truly tuesday type u until up ur urgent urologist us user usually very visit visited waiting want wanted wants was we
wednesday welcome well went were what when where whether which while white who why will wishes with without would
writing yes yesterday yet you your yours
"""
NO_NAME = frozenset(NO_NAME_WORDS.split())

# Last labels of bare domains. "pain.It", "mg.Take" and "leg.in the" only lack a space: `in` needs a `co.` or a path.
TLD = (
    r"(?:(?:co|ac|org|gov|nhs|edu|net)\.(?:uk|in|nz|za|jp)|(?:[Cc]om|COM|org|ORG|net|NET|info|gov|GOV|edu|EDU|biz)"
    r"(?:\.(?:au|br|mx|pk|ng|sg|ph|bd|np))?|in(?=/))(?![\w-])"
)
# Behind an @ or a scheme any last label will do, in one case: "example.com.Please" ends before the second dot.
LAST = r"(?:[a-z]{2,24}|[A-Z]{2,24})(?![\w-])"
PATH = r"(?:[/?#](?:[^\s<>\"\[\]()]|\([^\s<>\"\[\]()]{0,80}\))*(?<![.,;:!?']))?"
LOCAL = r"(?<![\w.+%'-])[\w.+%'-]+"
EMAIL = re.compile(
    rf"{LOCAL}(?:@(?:[\w-]+\.)+{LAST}|(?: ?@ ?| ?[(\[{{] ?(?:at|AT) ?[)\]}}] ?)(?:[\w-]+ ?\. ?)+{TLD}"
    r"|@(?:gmail|yahoo|hotmail|outlook|rediffmail|icloud)\b)"
)
# "john (at) mail (dot) com", with or without brackets.
AT_DOT = re.compile(
    rf"{LOCAL}(?: dot [\w-]+)?(?: ?[(\[{{] ?at ?[)\]}}] ?| at )"
    r"(?:[\w-]+(?: ?[(\[{] ?dot ?[)\]}] ?| dot )){1,4}(?:com|org|net|info|edu|gov|in|co|uk)(?!\w)",
    re.IGNORECASE,
)
URL = re.compile(
    rf"(?<!\w)(?i:https?: ?// ?(?:www\. ?)?|www\. ?)(?:[\w-]+\.)+{LAST}(?::\d{{1,5}})?{PATH}"
    r"|(?<!\w)(?i:https?://|www\.)[^\s<>\"\[\]]*[\w/]"
)
BARE = re.compile(rf"(?<![\w@.-])(?:[A-Za-z0-9-]+\.)+{TLD}{PATH}")
BARE_END = re.compile(rf"\.{TLD}")

SEVEN_DIGITS = re.compile(r"\d(?:[ ().-]{0,3}\d){6}")
PHONE_END = r"(?![\w/]|[.,:-]\d| ?(?:%|(?:mg|mcg|ug|ml|iu|miu|copies|cells|cumm|lakhs?|days|years|mm|cm|kcal)\b))"
# Shapes that are phone numbers by themselves. Dates, ranges, doses and lists of values have none of them.
PHONE = re.compile(
    r"(?<![\w.,/+(-])(?:"
    r"(?:\+ ?|00 ?)[1-9](?:[ .()-]{0,3}\d){7,14}"  # +44 20 7946 0000, +1 (212) 555-0100, 00 91 98765 43210
    r"|(?:1[ .-]?)?(?:\([2-9]\d\d\) ?|\(0\d\d\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}"  # (212) 555-0100, 1-800-555-0100
    r"|\(0\d{1,4}\) ?\d{3,4}[ -]?\d{3,4}"  # (020) 7946 0000
    r"|(?:91[ -]?)?[6-9]\d{4}[ -]?\d{5}|[2-9]\d\d[2-9]\d{6}"  # 98765 43210, an Indian mobile; 2125550100
    r"|(?<!\d[ -])0\d\d[ -]\d{3}[ -]\d{3}(?![ -]\d)|0\d(?:[ .-]?\d){8,9}"  # 055 555 012, 020 7946 0000, 01 99 00 12 34
    rf"|1[38]00[ -]?\d{{3}}[ -]?\d{{3}}){PHONE_END}",  # 1800 555 012
    re.IGNORECASE,
)
# Shorter and odder numbers only behind a word for calling: "call me on 555-0123".
CALLED = re.compile(
    r"\b(?:phone|call|tel|telephone|mobile|mob|cell|contact|whatsapp|fax|ring|dial|helpline|landline|ph|sms|messages?)\b"
    r"(?:[ .:=-]{1,3}(?:me|us|him|her|is|on|at|to|no|number|num|the|ward|reception)\b){0,4}[ .:=-]{0,3}\n?"
    rf"(?!\d{{1,2}}\.\d)(\(?\d[\d ().-]{{5,16}}\d){PHONE_END}",  # no "pH 7.38", no "cell 4.5"
    re.IGNORECASE,
)
NUMBER_OF = re.compile(  # "89 555 01 23 fax"
    r"(?<![\w.,/+(-])(\(?\d[\d ().-]{5,16}\d)(?= ?-? ?(?:fax|mobile|landline|whatsapp)\b)", re.IGNORECASE
)
# Dates, lists of small numbers (a French or Swiss number looks like one, but for its zero), ranges of round numbers.
NOT_PHONE = re.compile(
    r"\d{1,2}[-. ]\d{1,2}[-. ](?:19|20)\d\d(?!\d)|\d{4}-\d\d-\d\d(?!\d)|(?!0\d{1,2} )(?:\d{1,3}[ -]){3,}\d{1,3}\Z"
    r"|\d+00[ -]\d+00\Z|0\d[ .-](?:19|20)\d\d(?!\d)"
)

LATIN = "".join(map(chr, range(0x100, 0x180)))  # of Polish, Czech, Turkish, …
UPPER, LOWER = ("A-ZÀ-Þ" + "".join(filter(str.isupper, LATIN)), "a-zß-ÿ" + "".join(filter(str.islower, LATIN)))
WRITTEN = f"[{UPPER}][{LOWER}]+"
CAPITAL = rf"(?:(?:[A-Z]['’]|[A-Z][a-z]c?(?=[A-Z]))?{WRITTEN}(?:[-'’]{WRITTEN})*|[A-Z]{{2,20}})(?!\w)"
BEFORE = r"(?:(?:van|von|der|den|de|del|da|di|la|bin|al|el) |[B-HJ-Z]\.? |[A-Z]\. ?)"  # particles and initials
FULL = rf"{BEFORE}{{0,3}}{CAPITAL}(?: {BEFORE}{{0,2}}{CAPITAL}){{0,3}}"
SMALL = r"[a-z]{3,20}(?![\w'’@-])"
NAME, SMALL_NAME, ANY_NAME = (re.compile(pattern) for pattern in (FULL, SMALL, rf"{FULL}|{SMALL}"))
LINE_NAME = re.compile(rf"{FULL}|(?<=\n){SMALL}")  # "thanks\nmaria", not "thanks anyhow"
WORD = re.compile(r"[^\W\d_]{2,}")
CREDENTIAL = re.compile(r",? \(?(?:M\.?B\.?B\.?S|M\.?D|BDS|MDS|DNB|DGO|DCH|F\.?R\.?C\.?S|MRCP|FACP|RN)\b")


class Place(NamedTuple):
    """Where names stand."""

    heads: list[str]  # lower-case strings to look for, which is cheap
    before: re.Pattern[str]  # starts at one of them and ends before the name
    after: re.Pattern[str]  # what must follow the name
    written: re.Pattern[str]  # how the name may be written


def _place(heads: str, before: str, after: str = "", written: re.Pattern[str] = NAME) -> Place:
    return Place(heads.split("|"), re.compile(before), re.compile(after), written)


# "I went to the Dr. Tests were fine": behind these, "Dr." ends a sentence.
NOT_THE = "".join(rf"(?<!\b{word} )" for word in ("the", "The", "my", "My", "a", "your", "his", "her", "this"))
TO_DR = r"(?:(?<=to)|(?<=by)|(?<=see)|(?<=saw)|(?<=with)|(?<=under)|(?<=consulted)) dr\.? "
WHOSE = r"(?:(?<=\b[Mm]y )|(?<=\bMY )|(?<=\b[Hh]is )|(?<=\b[Hh]er )|(?<='s )|(?<=ull )|(?<=atient )|(?<![^\n]))"
MINE = r"(?<!\w)[Mm]y (?:son|daughter|wife|husband|mother|father|brother|sister|baby|child|kid|friend|doctor),? "
FROM = r"(?:,? originally)? from\b"
CALLS = r"(?<!\w)[Cc]all(?:s|ed)? me "
CLOSING = (
    r"(?<!\w)(?i:(?:regards|sincerely|wishes|(?<![^\n])best|cheers|take care|yours(?: \w{4,10})?|thanks|thank ?you)"
    r"(?: (?:a lot|so much|very much|in advance|again|doctor|doc|dr|sir))?(?!\w)[\s,.!:–—-]{1,6})"
)
SIGNED = rf"[ .,]{{0,2}}(?:\n|\Z)|{CREDENTIAL.pattern}"
PLACES = [
    _place("dr", rf"(?<!\w){NOT_THE}[Dd][rR](?!\w)\.? ?"),
    _place("doctor", rf"(?<!\w){NOT_THE}(?:[Dd]octor|DOCTOR) "),
    _place("mr|ms|miss |prof", r"(?<!\w)(?:Mr|MR\.|Mrs|MRS|Ms|Miss|Prof|Professor)(?!\w)\.? ?"),
    # In small letters only where the sentence shows that it is a name: "dr khan told", "saw dr khan".
    _place("dr", r"(?<!\w)[Dd]r(?!\w)\.? ?", " (?:said|says|told|gave|advised|prescribed)", SMALL_NAME),
    _place(" dr", TO_DR, "", SMALL_NAME),
    _place("dear |hi |hello |hey ", r"(?<!\w)(?:Dear|DEAR|Hi|HI|Hello|HELLO|Hey) ", r" ?[,.!\n-]|\Z"),
    _place("name|baby of ", rf"{WHOSE}[Nn](?:ame|AME)(?: is| IS| ?[:-]) ?|Baby of ", "", ANY_NAME),
    _place("i am |i'm |myself ", r"(?<!\w)[\w']+(?: am)? ", rf",? \(?(?:an? )?(?:aged? )?\d{{1,2}}\b|{FROM}"),
    _place("this is ", "[Tt]his is ", r",? (?:here|again|from)\b"),
    _place("my ", MINE, r",|'s\b| (?:is|has|was|had|who|and|aged|suffers|got|from|\(?\d)"),
    _place("call", CALLS, r"(?<![A-Z])(?:[.,;!?\n]| but\b| and\b|\Z)"),
    _place('" sa', r'(?<=[,.?!])" sa(?:ys|id) ', r"(?<![A-Z])(?:[.,;]| to\b|\Z)"),
    _place("regards|sincerely|wishes|best|cheers|take care|yours|thank", CLOSING, SIGNED, LINE_NAME),
]
DASH = re.compile(r"(?<=[.!?,])(?: ?[-–—~] ?|\n[-–—~])")  # "Please help. -Sam"; "\n- Sam" may be a list
LAST_LINE = re.compile(r"\W{0,3}\Z")


Span = tuple[int, int, str]  # start, end, kind: email, phone, url or name


def mask(text: str) -> tuple[str, dict[str, int]]:
    """The text with [EMAIL], [PHONE], [URL] and [NAME] in place of personal data, and the counts of kinds found.

    Titles and credentials stay: "Dr. [NAME], MBBS". Masking a masked text changes nothing.
    """
    counts: dict[str, int] = {}
    while found := spans(text):  # again, since a mask can, rarely, uncover a neighbour
        masked = ""
        done = 0
        for start, end, kind in found:
            masked += f"{text[done:start]}[{kind.upper()}]"
            counts[kind] = counts.get(kind, 0) + 1
            done = end
        text = masked + text[done:]
    return text, counts


def spans(text: str) -> list[Span]:
    """(start, end, kind) of the personal data in a text, sorted and apart; of two that overlap, the first or longer."""
    lower = text.replace("İ", "I").lower()  # the one letter that would grow: positions must agree
    found = [*_emails(text, lower), *_urls(text, lower), *_phones(text), *_names(text, lower)]
    apart: list[Span] = []
    for start, end, kind in sorted(found, key=lambda span: (span[0], -span[1])):
        if not apart or start >= apart[-1][1]:
            apart.append((start, end, kind))
    return apart


def _emails(text: str, lower: str) -> Iterator[Span]:
    if "@" in text or "at)" in lower or "at]" in lower:
        yield from ((*found.span(), "email") for found in EMAIL.finditer(text))
    if "dot" in lower and (" at" in lower or "(at" in lower or "[at" in lower):
        yield from ((*found.span(), "email") for found in AT_DOT.finditer(text))


def _urls(text: str, lower: str) -> Iterator[Span]:
    if "://" in lower or ": //" in lower or "www" in lower:
        yield from ((*found.span(), "url") for found in URL.finditer(text))
    if BARE_END.search(text):
        yield from ((*found.span(), "url") for found in BARE.finditer(text))


def _phones(text: str) -> Iterator[Span]:
    if SEVEN_DIGITS.search(text):
        for pattern, group in ((PHONE, 0), (CALLED, 1), (NUMBER_OF, 1)):
            for found in pattern.finditer(text):
                if 7 <= sum(map(str.isdigit, found[group])) <= 15 and not NOT_PHONE.match(found[group]):
                    yield (*found.span(group), "phone")


def _names(text: str, lower: str) -> Iterator[Span]:
    for heads, before, after, written in PLACES:
        for head in heads:
            at = lower.find(head)
            while at >= 0:
                if place := before.match(text, at):
                    yield from _name(text, place.end(), written, after)
                at = lower.find(head, at + 1)
    for place in DASH.finditer(text, max(0, len(text) - 60)):
        yield from _name(text, place.end(), NAME, LAST_LINE)
    if "MBBS" in text or "MD" in text or "M.D" in text or "M.B" in text:
        for credential in CREDENTIAL.finditer(text):
            for name in NAME.finditer(text, max(0, credential.start() - 40), credential.start()):
                if " " in name[0]:
                    yield from _name(text, name.start(), NAME, CREDENTIAL)


def _name(text: str, start: int, written: re.Pattern[str], after: re.Pattern[str]) -> Iterator[Span]:
    """The name that begins at `start`, as a span, up to the first word that is none; nothing where there is no name."""
    if found := written.match(text, start):
        words = WORD.finditer(found[0])
        cut = next((word.start() for word in words if word[0].lower() in NO_NAME), len(found[0]))
        name = found[0][:cut].rstrip()
        if WORD.search(name) and after.match(text, start + len(name)):
            yield (start, start + len(name), "name")
