"""French texts with agreement: tales, days at home, markets, letters; gender, number, elision and verb endings hold."""

from dataclasses import dataclass
from random import Random

from moetui.demo.corpus._words import sentence

_VOWELS = "aeiouhéèêâîôœ"


@dataclass(frozen=True, slots=True)
class _Noun:
    word: str
    feminine: bool = False
    plural_ending: str = "s"

    @property
    def plural(self) -> str:
        return self.word + self.plural_ending

    @property
    def indefinite(self) -> str:
        return f"{'une' if self.feminine else 'un'} {self.word}"

    @property
    def definite(self) -> str:
        return definite(self.word, self.feminine)

    @property
    def possessive(self) -> str:
        """With `son` or `sa`; `son` before a vowel whatever the gender."""
        return f"{'sa' if self.feminine and not _elides(self.word) else 'son'} {self.word}"


@dataclass(frozen=True, slots=True)
class _Adjective:
    masculine: str
    feminine: str

    def agree(self, noun: _Noun) -> str:
        return self.feminine if noun.feminine else self.masculine


def _elides(word: str) -> bool:
    return word[0].lower() in _VOWELS


def definite(word: str, feminine: bool) -> str:
    """`le`, `la` or `l'` before a noun phrase."""
    return f"l'{word}" if _elides(word) else f"{'la' if feminine else 'le'} {word}"


def _of(phrase: str) -> str:
    """`de` before a phrase that starts with an article: `du`, `de la`, `de l'`."""
    return f"du {phrase[3:]}" if phrase.startswith("le ") else f"de {phrase}"


def _to(phrase: str) -> str:
    """`à` before a phrase that starts with an article: `au`, `à la`, `à l'`."""
    return f"au {phrase[3:]}" if phrase.startswith("le ") else f"à {phrase}"


_HEROES = (
    _Noun("renard"), _Noun("lapin"), _Noun("ours", plural_ending=""), _Noun("chat"), _Noun("loup"), _Noun("garçon"),
    _Noun("souris", True, ""), _Noun("fille", True), _Noun("chèvre", True), _Noun("poule", True),
    _Noun("grenouille", True), _Noun("tortue", True), _Noun("abeille", True), _Noun("âne"),
)  # fmt: skip
_HE = ("Paul", "Louis", "Jules", "Hugo")
_SHE = ("Marie", "Claire", "Lucie", "Sophie")
_BEFORE = (_Adjective("petit", "petite"), _Adjective("jeune", "jeune"), _Adjective("grand", "grande"))
_AFTER = (
    _Adjective("curieux", "curieuse"), _Adjective("timide", "timide"), _Adjective("courageux", "courageuse"),
    _Adjective("gourmand", "gourmande"), _Adjective("bavard", "bavarde"), _Adjective("malin", "maligne"),
    _Adjective("gentil", "gentille"), _Adjective("patient", "patiente"),
)  # fmt: skip
_COLOURS = (
    _Adjective("rouge", "rouge"), _Adjective("bleu", "bleue"), _Adjective("vert", "verte"), _Adjective("noir", "noire"),
    _Adjective("blanc", "blanche"), _Adjective("gris", "grise"),
)  # fmt: skip
_PLACES = (
    _Noun("forêt", True), _Noun("village"), _Noun("jardin"), _Noun("maison", True), _Noun("château", False, "x"),
    _Noun("ferme", True), _Noun("auberge", True), _Noun("école", True), _Noun("moulin"),
)  # fmt: skip
_THINGS = (
    _Noun("clé", True), _Noun("chapeau", False, "x"), _Noun("lampe", True), _Noun("livre"), _Noun("écharpe", True),
    _Noun("panier"), _Noun("montre", True), _Noun("ballon"), _Noun("étoile", True), _Noun("tambour"),
)  # fmt: skip
_FOODS = (
    _Noun("pomme", True), _Noun("poire", True), _Noun("tomate", True), _Noun("carotte", True), _Noun("œuf"),
    _Noun("citron"), _Noun("gâteau", False, "x"), _Noun("fromage"), _Noun("orange", True), _Noun("melon"),
)  # fmt: skip
_VERBS = ("chanter", "danser", "jouer", "parler", "marcher", "rêver", "travailler", "dessiner", "cuisiner")
_NUMBERS = ("deux", "trois", "quatre", "cinq", "six", "dix")
_DAYS = ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche")
_WEATHERS = ("il pleuvait", "il faisait beau", "il neigeait", "le soleil brillait", "le vent soufflait")
_PRESENT = {"je": "e", "tu": "es", "il": "e", "elle": "e", "nous": "ons", "vous": "ez", "ils": "ent", "elles": "ent"}
_IMPERFECT = {"il": "ait", "elle": "ait", "ils": "aient", "elles": "aient", "nous": "ions"}


def _conjugated(pronoun: str, verb: str, endings: dict[str, str]) -> str:
    """A regular verb in -er after its pronoun, `j'` before a vowel."""
    form = verb[:-2] + endings[pronoun]
    return f"j'{form}" if pronoun == "je" and _elides(form) else f"{pronoun} {form}"


def _colored(rng: Random, thing: _Noun) -> str:
    return f"{thing.word} {rng.choice(_COLOURS).agree(thing)}"


@dataclass(frozen=True, slots=True)
class _Tale:
    name: str
    il: str
    friend: _Noun
    place: _Noun
    thing: _Noun
    food: _Noun


def _troubles(rng: Random, t: _Tale) -> list[str]:
    """One or two things that happen, in any order."""
    thing, friend = t.thing, t.friend.definite
    colored = _colored(rng, thing)
    possessive = "a" if thing.feminine and not _elides(thing.word) else "on"
    this = "cette" if thing.feminine else "cet" if _elides(thing.word) else "ce"
    about_the_thing = rng.choice(
        (
            f"Un jour, {t.il} perdit s{possessive} {colored}. « J'ai perdu m{possessive} {thing.word} ! » dit {t.name}."
            f" {sentence(friend)} l'avait {'trouvée' if thing.feminine else 'trouvé'} près {_of(t.place.definite)}.",
            f"Un soir, {rng.choice(_WEATHERS)}, et {t.name} trouva {'une' if thing.feminine else 'un'} {colored}."
            f" « À qui est {this} {thing.word} ? » demanda {t.name}. « À moi », dit {friend}.",
        )
    )
    visit = (
        f"Un matin, {t.name} alla {_to(t.place.definite)} pour voir {friend}."
        f" « Veux-tu {t.food.indefinite} ? » demanda {friend}. « Oui, merci ! » dit {t.name}."
    )
    return rng.sample([about_the_thing, visit], rng.choice((1, 2)))


def _tale(rng: Random) -> str:
    hero, friend = rng.sample(_HEROES, 2)
    place, thing, food = rng.choice(_PLACES), rng.choice(_THINGS), rng.choice(_FOODS)
    name, il = rng.choice(_SHE if hero.feminine else _HE), "elle" if hero.feminine else "il"
    before, after = rng.choice(_BEFORE).agree(hero), rng.choice(_AFTER).agree(hero)
    verb, other = rng.sample(_VERBS, 2)
    article = "une" if hero.feminine else "un"
    named = f"{'appelée' if hero.feminine else 'appelé'} {name}"
    opening = rng.choice(
        (
            f"Il était une fois {article} {before} {hero.word} {named} qui vivait dans {place.indefinite}.",
            f"Il était une fois {article} {hero.word} très {after} {named}.",
            f"Dans {place.indefinite} vivait {article} {before} {hero.word} {named}.",
        )
    )
    habit = rng.choice(
        (
            f"{name} aimait {verb} et {other}.",
            f"Chaque matin, {_conjugated(il, verb, _IMPERFECT)} avec ses amis.",
            f"Tous les {rng.choice(_DAYS)}s, {_conjugated(il, verb, _IMPERFECT)} devant {place.definite}.",
        )
    )
    troubles = _troubles(rng, _Tale(name, il, friend, place, thing, food))
    ending = rng.choice(
        (
            f"Depuis ce jour, {name} et {friend.definite} sont amis.",
            f"Le soir, {name} rentra {_to(place.definite)}, {'heureuse' if hero.feminine else 'heureux'}.",
            f"Et ils partagèrent {food.indefinite}.",
            "Et ils vécurent heureux très longtemps.",
        )
    )
    return " ".join((opening, habit, *troubles, ending))


def _market(rng: Random) -> str:
    name = rng.choice(_SHE + _HE)
    first, second = rng.sample(_FOODS, 2)
    one, two, price = rng.choice(_NUMBERS), rng.choice(_NUMBERS), rng.choice(_NUMBERS)
    il = "elle" if name in _SHE else "il"
    lines = [f"Le {rng.choice(_DAYS)}, {name} va au marché."]
    lines.append(f"« Bonjour ! Je voudrais {one} {first.plural} et {two} {second.plural}, s'il vous plaît. »")
    if _elides(second.word):
        lines.append(f"« Voici les {first.plural} et les {second.plural}. »")
    elif rng.random() < 0.6:
        lines.append(f"« Nous n'avons plus de {second.plural}. » « Alors seulement les {first.plural}. »")
    lines.append(f"« Cela fait {price} euros. » « Voilà, merci et au revoir ! »")
    prepared = _conjugated(il, rng.choice(("préparer", "cuisiner")), _PRESENT)
    meal = rng.choice(("le dîner", "le repas", "une soupe", "une salade"))
    lines.append(f"{name} rentre à la maison et {prepared} {meal}.")
    return " ".join(lines)


def _day(rng: Random) -> str:
    subjects = (("je", "Je"), ("nous", "Nous"), ("elles", "Mes sœurs"), ("ils", "Mes frères"), ("elle", "Ma mère"))
    lines = []
    for day in _DAYS[(start := rng.randint(0, 3)) : start + rng.randint(3, 4)]:
        pronoun, subject = rng.choice(subjects)
        form = _conjugated(pronoun, rng.choice(_VERBS), _PRESENT).split(" ", 1)[-1]
        place = rng.choice(_PLACES)
        first = subject if subject != "Je" else "je"
        first = first if first == "je" else first[0].lower() + first[1:]
        lines.append(f"Le {day}, {first} {form} dans {place.definite}.")
    lines.append(rng.choice(("J'aime beaucoup ma semaine.", "Quelle belle semaine !", "Et toi, que fais-tu ?")))
    return " ".join(lines)


def _portrait(rng: Random) -> str:
    hero, place = rng.choice(_HEROES), rng.choice(_PLACES)
    first, second = rng.sample(_AFTER, 2)
    things = rng.sample(_THINGS, 2)
    name = rng.choice(_SHE if hero.feminine else _HE)
    il = "elle" if hero.feminine else "il"
    lines = [
        f"Voici {name}, {'la' if hero.feminine else 'le'} {rng.choice(_BEFORE).agree(hero)} {hero.word}.",
        f"{sentence(il)} est {first.agree(hero)}, mais aussi un peu {second.agree(hero)}.",
        f"Dans {place.possessive}, {il} a {things[0].indefinite} et {'une' if things[1].feminine else 'un'}"
        f" {_colored(rng, things[1])}.",
        f"{sentence(_conjugated(il, rng.choice(_VERBS), _PRESENT))} souvent avec {rng.choice(_HEROES).definite}.",
    ]
    return " ".join(lines)


def _dialogue(rng: Random) -> str:
    first, second = rng.sample(_SHE + _HE, 2)
    place, thing = rng.choice(_PLACES), rng.choice(_THINGS)
    mine = "ma" if thing.feminine and not _elides(thing.word) else "mon"
    yours = "ta" if mine == "ma" else "ton"
    it = "elle" if thing.feminine else "il"
    turns = [
        f"— Bonjour, {second} ! Comment vas-tu ?",
        f"— {rng.choice(('Très bien', 'Pas mal', 'Bien'))}, merci, {first}. Je cherche {mine} {thing.word}.",
        f"— De quelle couleur est {yours} {thing.word} ?",
        f"— {sentence(it)} est {rng.choice(_COLOURS).agree(thing)}.",
        f"— {sentence(it)} est dans {place.definite} !",
        f"— Merci beaucoup, {first}. À {rng.choice(_DAYS)} !",
    ]
    return "\n".join(turns)


def document(rng: Random) -> str:
    """One text of about 30 to 80 words."""
    return rng.choice((_tale, _tale, _tale, _market, _day, _portrait, _dialogue))(rng)
