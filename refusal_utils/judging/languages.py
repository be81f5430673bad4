"""Which language a response is in, as far as the judge needs it: whether it is one that the judge was measured in."""

import re
import unicodedata
from collections import Counter

# Languages other than English in which the learned judge reached kappa 0.7 on prompts that it had not seen
# (docs/judge.md).
JUDGED = ("ar", "de", "es", "fr", "ja", "ko", "pl", "ru", "th")
# Frequent short words by language; those of languages that are not judged keep them apart from the others.
_WORDS = {
    "en": "a no the of and to in is you that it for with as are be this have not or by from at an can your my i'm i do if will would there they what how was but on",
    "de": "nein der die das und ist ich nicht ein eine zu mit für auf sie es dass wir kann leider tut mir leid ihnen aber von den dem im bei",
    "es": "el la los las y es que de en un una por para con no lo se puedo pero su como siento eso ayudarte más",
    "fr": "le la les et est que de un une des pour dans je ne pas vous ce qui peux sur désolé mais avec cette cela au du",
    "it": "il lo gli e è che di un una per non sono con questo posso mi dispiace ma della del aiutarti come nel",
    "nl": "de het een en is van ik niet dat te op voor met je kan u spijt maar die zijn deze aan helpen",
    "pl": "i w na nie że się jest do to z o jak przykro mi ale mogę nie może dla przez tego",
    "pt": "o a os as e é que de em um uma para com não eu posso desculpe mas isso você ajudar por do da",
    "sv": "och är det att jag inte en ett som på för med kan den av tyvärr men hjälpa dig",
    "da": "og er det at jeg ikke en et som på for med kan den af desværre men hjælpe dig til",
    "fi": "ja on ei en se että voi olen valitettavasti mutta auttaa tämä sinua pahoittelen",
    "tr": "ve bir bu için değil ben ne de da ile ama üzgünüm size yardımcı olamam edemem çok",
    "id": "dan yang di saya tidak ini untuk dengan anda bisa maaf membantu itu dapat dari ke",
    "vi": "và là của tôi không thể xin lỗi bạn này cho giúp được với nhưng các",
    "ro": "și este nu în că pot îmi pare rău dar cu pentru să te ajut o un la de",
    "cs": "a je se na že to v ne nemohu s omlouvám ale mi pomoci bohužel jsem s tím",
    "hu": "és a az nem hogy egy ez sajnálom de segíteni tudok ebben van sajnos",
    "sw": "na ya wa kwa ni siwezi samahani lakini kukusaidia hii katika",
    "tl": "ang ng sa at hindi ako ko mga na po pasensya kita matulungan",
}  # fmt: skip
_LANGUAGES: dict[str, list[str]] = {}  # of each word
for _language, _words in _WORDS.items():
    for _word in dict.fromkeys(_words.split()):
        _LANGUAGES.setdefault(_word, []).append(_language)
_SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "THAI": "th",
    "ARABIC": "ar",
    "CYRILLIC": "ru",
}
_FOREIGN = {"ar": "پچژگکیےٹڈڑھ", "ru": "іїєґјљњћђўҳқғәөү"}  # letters of Persian and Urdu, Ukrainian and others
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def language_of(text: str) -> str | None:
    """The language of a plain text: "en", another of those whose words or script are known, or None for any other.

    Texts without a trace of another language count as English.

    >>> language_of("Lo siento, pero no puedo."), language_of("Paris, Lyon."), language_of("Δεν μπορώ να βοηθήσω.")
    ('es', 'en', None)
    """
    if text.isascii():
        return _latin(text[:600])
    letters = [each for each in text[:600] if each.isalpha()]
    scripts = Counter({"LATIN": 0})
    for letter, n in Counter(letters).items():
        scripts[unicodedata.name(letter, "").split()[0]] += n
    latin = scripts["LATIN"] + scripts["FULLWIDTH"]
    if 2 * latin >= len(letters):
        return _latin(text[:600])
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.05 * len(letters):
        return "ja"
    script = next(name for name, _ in scripts.most_common() if name != "LATIN")
    language = _SCRIPTS.get(script)
    foreign = sum(each in _FOREIGN.get(language or "", "") for each in text.lower())
    return None if foreign > 0.02 * len(letters) else language


def _latin(text: str) -> str | None:
    words = _WORD.findall(text.lower())
    counts = Counter(language for word in words for language in _LANGUAGES.get(word, ()))
    best = max(_WORDS, key=lambda language: counts[language])
    if counts[best] > counts["en"]:
        enough = counts[best] >= 2 or len(words) <= 3
        return best if enough and counts[best] >= 1.3 * counts["en"] else "en"
    strange = sum(not each.isascii() for each in text if each.isalpha())
    is_prose = sum(len(word) > 1 for word in words) >= 5 and not re.search(r"[,;:|\d{}()=]|\n", text)
    return None if counts["en"] == 0 and (is_prose or strange > 2) and len(words) > 3 else "en"
