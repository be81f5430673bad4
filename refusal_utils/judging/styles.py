"""How a refusal is worded: the styles of `STYLES` that its text shows, found by phrases."""

from .phrases import pattern

_PATTERNS = {
    "identity": pattern(
        r"\b(?:as|am|'m)(?: only| just)? an? (?:AI|artificial|large language|language model|text-based|machine|computer|program|piece of software)",
        r"\b(?:do not|don't|no) (?:have )?(?:personal|feelings|emotions|a body|opinions|consciousness|senses|a (?:life|home|family|name|past))",
        r"\bnot (?:a )?(?:human|person|alive)\b|\bsoftware\b",
    ),
    "missing context": pattern(
        r"\b(?:could|can|would) you (?:please )?(?:clarify|provide|give|specify|tell|explain|share|say)|\bmore (?:context|information|details?)\b",
        r"\bnot (?:quite )?(?:sure|clear) (?:what|which|who)|\b(?:which|what) (?:one|\w+) (?:do|did) you mean|\bunclear\b|\bambiguous\b|\bsomething is missing\b|\bmissing\b",
    ),
    "incapability": pattern(
        r"\b(?:not able|unable|no ability|not capable|no access|have access|real-time|browse|beyond my|outside my|capabilit|not possible|impossible)",
        r"\bno (?:way to|definite|one (?:can|knows))\b|\bcannot (?:know|predict|access|see|hear|browse|be known|open|play|do)\b|\bcan't (?:know|predict|access|see|hear|browse|open|play|do)\b",
    ),
    "moral judgement": pattern(
        r"\b(?:wrong|immoral|unethical|ethical|inappropriate|not appropriate|not okay|not ok|unacceptable|disrespect\w*|hurtful|offensive|stereotyp\w*|discriminat\w*|hateful|dignity|respect)\b"
    ),
    "illegality or harm": pattern(
        r"\b(?:illegal|against the law|the law|crime|criminal|harm\w*|danger\w*|unsafe|unlawful|safety|hurt (?:someone|people|you)|risk\w*|violen\w*)\b"
    ),
    "professional": pattern(
        r"\b(?:lawyer|attorney|doctor|physician|pharmacist|financial advis[eo]r|accountant|therapist|licen[cs]ed|qualified|professional|medical advice|legal advice|financial advice)\b"
    ),
    "help referral": pattern(
        r"\b(?:hotline|helpline|help line|crisis|emergency (?:services|number|room)|988|911|reach out|seek (?:help|support|professional)|talk to (?:someone|a)|support (?:group|line)|contact (?:the )?(?:authorities|police|emergency))\b"
    ),
    "apology": pattern(r"\b(?:sorry|apologi[sz]e|apologies|regret|afraid)\b"),
}


def refusal_styles(text: str) -> tuple[str, ...]:
    """The styles that the wording of a refusal shows, or `generic` if it shows none.

    >>> refusal_styles("Sorry, but that is illegal.")
    ('illegality or harm', 'apology')
    """
    return tuple(name for name, pattern in _PATTERNS.items() if pattern.search(text)) or ("generic",)
