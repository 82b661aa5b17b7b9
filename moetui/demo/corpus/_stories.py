"""Short stories: a hero with a wish, a trouble, two or three people met on the way, and an end."""

from dataclasses import dataclass
from random import Random

from moetui.demo.corpus._words import sentence, with_article

_KINDS = (
    "fox", "rabbit", "bear", "mouse", "hedgehog", "owl", "otter", "squirrel", "cat", "goat", "duck", "frog",
    "girl", "boy", "baker", "sailor", "giant", "robot", "dragon", "turtle",
)  # fmt: skip
_SHE = ("Mila", "Nora", "Ada", "Ruby", "Wren", "Ivy", "Maya", "Rosa")
_HE = ("Tom", "Otto", "Finn", "Hugo", "Sam", "Leo", "Ben", "Max")
_SIZES = ("little", "small", "young", "old", "tiny", "tall")
_TRAITS = ("kind", "brave", "shy", "curious", "clever", "lazy", "proud", "gentle", "cheerful", "careful")
_LANDS = (
    ("in", "forest", ("quiet", "dark", "green")), ("by", "lake", ("blue", "cold", "quiet")),
    ("on", "hill", ("green", "windy", "high")), ("near", "village", ("small", "busy", "sleepy")),
    ("under", "oak tree", ("tall", "old", "crooked")), ("beside", "river", ("wide", "slow", "cold")),
    ("at the edge of", "meadow", ("sunny", "green", "wide")), ("on", "island", ("small", "windy", "sunny")),
    ("behind", "mill", ("old", "white", "crooked")), ("in", "valley", ("green", "deep", "sleepy")),
)  # fmt: skip
_THINGS = (
    ("red", "kite"), ("silver", "bell"), ("blue", "scarf"), ("wooden", "boat"), ("golden", "key"), ("warm", "lantern"),
    ("small", "drum"), ("paper", "star"), ("round", "stone"), ("green", "hat"), ("brass", "horn"), ("yellow", "ball"),
)  # fmt: skip
_FOODS = ("bread", "honey", "soup", "apples", "berries", "nuts", "cake", "cheese", "pears", "carrots")
_LOVES = (
    "to sing", "to dance in the rain", "to count the stars", "to climb trees", "to tell jokes", "to paint flowers",
    "to swim", "to read old books", "to bake", "to look at the moon", "to collect shells", "to whistle",
)  # fmt: skip
_SKILLS = ("swim", "fly a kite", "whistle", "play the drum", "skate", "climb", "bake bread", "row a boat", "sing")
_WEATHERS = ("sunny", "rainy", "cold", "windy", "foggy", "bright", "snowy")
_TIMES = ("morning", "evening", "afternoon", "day")
_PLACES = ("under the bed", "behind the door", "in the tall grass", "by the well", "on the roof", "in the old boat")
_LESSONS = (
    "a friend is worth more than gold", "it is never too late to try", "even a small light helps in the dark",
    "a good deed comes back", "it is better to ask than to worry", "patience makes hard things easy",
    "sharing makes everything taste better", "being brave does not mean being loud",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Character:
    kind: str
    name: str
    she: bool

    @property
    def he(self) -> str:
        return "she" if self.she else "he"

    @property
    def him(self) -> str:
        return "her" if self.she else "him"

    @property
    def his(self) -> str:
        return "her" if self.she else "his"


@dataclass(frozen=True, slots=True)
class _Scene:
    hero: _Character
    friend: _Character
    where: str
    land: str
    adjective: str
    thing: str


def _character(rng: Random, taken: _Character | None = None) -> _Character:
    while True:
        kind = rng.choice(_KINDS)
        she = kind == "girl" or (kind != "boy" and rng.random() < 0.5)
        name = rng.choice(_SHE if she else _HE)
        if taken is None or (taken.name != name and taken.kind != kind):
            return _Character(kind, name, she)


def _scene(rng: Random) -> _Scene:
    hero = _character(rng)
    where, land, adjectives = rng.choice(_LANDS)
    adjective, thing = rng.choice(_THINGS)
    place = f"{where} {with_article(f'{rng.choice(adjectives)} {land}')}"
    return _Scene(hero, _character(rng, hero), place, land, adjective, thing)


def _opening(rng: Random, s: _Scene) -> str:
    h = s.hero
    first, second = rng.choice(_SIZES), rng.choice(_TRAITS)
    described = with_article(f"{first} {h.kind}")
    return rng.choice(
        (
            f"Once there was {described} named {h.name} who lived {s.where}.",
            f"Once there was {described} who lived {s.where}. {sentence(h.his)} name was {h.name}.",
            f"Once there was {with_article(f'{second} {h.kind}')} named {h.name}, and {h.he} lived {s.where}.",
            f"Once upon a time, {s.where}, there lived {described} named {h.name}.",
            f"Long ago, {with_article(f'{second} {h.kind}')} named {h.name} lived {s.where}.",
            f"{h.name} was {with_article(f'{second} {h.kind}')} who lived {s.where}.",
        )
    )


def _habit(rng: Random, s: _Scene) -> str:
    h, f = s.hero, s.friend
    love, other = rng.sample(_LOVES, 2)
    return rng.choice(
        (
            f"{h.name} loved {love} and {other}.",
            f"Every {rng.choice(_TIMES)} {h.he} liked {love}, and everybody knew it.",
            f"{sentence(h.he)} loved {love}, but most of all {h.he} loved {other}.",
            f"{sentence(h.his)} best friend was {with_article(f.kind)} named {f.name}, who loved {love}.",
            f"{h.name} was very {rng.choice(_TRAITS)} and liked {love} more than anything else.",
        )
    )


def _time(rng: Random) -> str:
    return rng.choice(
        (
            f"One {rng.choice(_WEATHERS)} {rng.choice(_TIMES)},",
            f"Then, one {rng.choice(_WEATHERS)} {rng.choice(_TIMES)},",
            f"One {rng.choice(_TIMES)}, when it was {rng.choice(_WEATHERS)},",
        )
    )


def _met(rng: Random, s: _Scene, count: int) -> list[str]:
    """Kinds of strangers met on the way, other than the two we know."""
    return rng.sample([kind for kind in _KINDS if kind not in (s.hero.kind, s.friend.kind, "girl", "boy")], count)


def _lost(rng: Random, s: _Scene) -> list[str]:
    h, f, thing = s.hero, s.friend, f"{s.adjective} {s.thing}"
    lines = [f"{_time(rng)} {h.name} could not find {h.his} {thing}.", f'"Where is my {s.thing}?" {h.he} cried.']
    lines += [
        f'{sentence(h.he)} asked the {kind}, but the {kind} said, "I have not seen your {s.thing}."'
        for kind in _met(rng, s, rng.choice((1, 2)))
    ]
    place = rng.choice(_PLACES)
    lines.append(f'Then {f.name} the {f.kind} came along. "Did you look {place}?" asked {f.name}.')
    lines.append(f"{h.name} looked {place}, and there was the {thing}!")
    lines.append(
        f'"Thank you, {f.name}," said {h.name}, and they {rng.choice(("laughed", "danced", "sang"))} together.'
    )
    return lines


def _found(rng: Random, s: _Scene) -> list[str]:
    h, f, thing = s.hero, s.friend, f"{s.adjective} {s.thing}"
    (kind,) = _met(rng, s, 1)
    return [
        f"{_time(rng)} {h.name} found {with_article(thing)} {rng.choice(_PLACES)}.",
        f'"Whose {s.thing} is this?" asked {h.name}.',
        f'The {kind} said, "It is not mine. Ask {f.name} the {f.kind}."',
        f"So {h.name} walked to the house of {f.name} and knocked on the door.",
        f'"My {s.thing}!" cried {f.name}. "I lost it {rng.choice(("last week", "long ago", "in the storm"))}."',
        f"{f.name} was so happy that {f.he} gave {h.name} some {rng.choice(_FOODS)}.",
    ]


def _storm(rng: Random, s: _Scene) -> list[str]:
    h, f = s.hero, s.friend
    noise = rng.choice(("The wind howled", "Thunder rolled", "The rain fell hard", "The snow fell fast"))
    return [
        f"{_time(rng)} a great storm came over the {s.land}.",
        f"{noise}, and {h.name} was {rng.choice(('afraid', 'cold and wet', 'all alone'))}.",
        f"Suddenly {h.he} heard a small voice. It was {f.name} the {f.kind}, who had no place to hide.",
        f'"Come in," said {h.name}. "There is room for two."',
        f"They sat by the fire, ate {rng.choice(_FOODS)} and told each other stories until the storm was over.",
    ]


def _sharing(rng: Random, s: _Scene) -> list[str]:
    h, f, food = s.hero, s.friend, rng.choice(_FOODS)
    return [
        f"{_time(rng)} {h.name} made some {food} for dinner.",
        f'Then {f.name} the {f.kind} came to the door. "I am so hungry," said {f.name}.',
        f"{h.name} looked at the {food}. There was not much, but {h.he} shared it anyway.",
        f"The next day {f.name} came back with {rng.choice([other for other in _FOODS if other != food])} for {h.him}.",
    ]


def _learning(rng: Random, s: _Scene) -> list[str]:
    h, f, skill = s.hero, s.friend, rng.choice(_SKILLS)
    lines = [
        f"But {h.name} could not {skill}, and that made {h.him} sad.",
        f'"I can teach you to {skill}," said {f.name} the {f.kind}.',
    ]
    lines.append(f"On the first day {h.name} {rng.choice(('fell down', 'gave up', 'made a mess', 'cried a little'))}.")
    lines.append(f"On the second day it went {rng.choice(('a little', 'much'))} better.")
    lines.append(f"On the third day {h.name} could {skill} all by {h.him}self, and {f.name} clapped.")
    return lines


def _journey(rng: Random, s: _Scene) -> list[str]:
    h, f = s.hero, s.friend
    kinds = _met(rng, s, 2)
    goal = rng.choice(("the sea", "the moon", "the end of the road", "the highest mountain", "the big city"))
    lines = [f"{_time(rng)} {h.name} wanted to see {goal}, so {h.he} packed some {rng.choice(_FOODS)} and set off."]
    for kind, ask in zip(kinds, ("First", "Then"), strict=True):
        answer = rng.choice((f"It is far, {h.name}", "Follow the river", "Go over the hill", "Keep to the path"))
        lines.append(f'{ask} {h.he} met {with_article(kind)}. "Where is {goal}?" asked {h.name}. "{answer}," it said.')
    lines.append(f"At last {h.he} came to {goal}, and who was there? It was {f.name} the {f.kind}!")
    return lines


def _ending(rng: Random, s: _Scene) -> str:
    h, f = s.hero, s.friend
    return rng.choice(
        (
            f"From that day on, {h.name} and {f.name} were the best of friends.",
            f"That night {h.name} slept well and dreamed of the {s.land}.",
            f"And so {h.name} learned that {rng.choice(_LESSONS)}.",
            f'"{sentence(rng.choice(_LESSONS))}," said {f.name}, and {h.name} smiled.',
            f"{h.name} went home happy. The end.",
        )
    )


def document(rng: Random) -> str:
    """One story of about 60 to 140 words, in one to three paragraphs."""
    s = _scene(rng)
    plot = rng.choice((_lost, _found, _storm, _sharing, _learning, _journey))
    beginning = " ".join((_opening(rng, s), _habit(rng, s)))
    break_ = rng.choice((" ", " ", "\n\n"))
    return f"{beginning}{break_}{' '.join(plot(rng, s))}{break_}{_ending(rng, s)}"
