"""Recipes: a dish, what goes in with amounts, and steps that use exactly what was listed."""

from dataclasses import dataclass
from random import Random

from moetui.demo.corpus._words import listed, sentence


@dataclass(frozen=True, slots=True)
class _Ingredient:
    name: str
    unit: str
    least: int
    most: int
    step: int
    cut: str = ""

    def amount(self, rng: Random) -> str:
        number = rng.randrange(self.least, self.most + 1, self.step)
        return f"{number} {self.unit}".strip()


def _vegetable(name: str, cut: str) -> _Ingredient:
    return _Ingredient(name, "", 2, 5, 1, cut)


_VEGETABLES = (
    _vegetable("tomatoes", "dice"), _vegetable("carrots", "slice"), _vegetable("onions", "chop"),
    _vegetable("potatoes", "peel"), _vegetable("peppers", "slice"), _vegetable("leeks", "wash"),
    _vegetable("mushrooms", "slice"), _vegetable("beets", "peel"),
)  # fmt: skip
_FRUITS = (
    _vegetable("apples", "peel"), _vegetable("pears", "slice"), _vegetable("plums", "halve"),
    _vegetable("lemons", "squeeze"), _vegetable("bananas", "mash"), _vegetable("peaches", "slice"),
)  # fmt: skip
_STARCHES = (
    _Ingredient("rice", "g", 100, 400, 50), _Ingredient("pasta", "g", 200, 500, 100),
    _Ingredient("lentils", "g", 150, 300, 50), _Ingredient("beans", "cups", 2, 4, 1),
    _Ingredient("barley", "g", 100, 300, 50),
)  # fmt: skip
_FATS = (_Ingredient("olive oil", "tablespoons", 2, 5, 1), _Ingredient("butter", "g", 20, 60, 10))
_HERBS = ("basil", "thyme", "parsley", "mint", "dill", "sage")
_SPICES = ("pepper", "cumin", "paprika", "ginger", "cinnamon", "nutmeg")
_COOK = ("Cook", "Simmer", "Boil")


@dataclass(frozen=True, slots=True)
class _Recipe:
    title: str
    serves: int
    minutes: int
    ingredients: tuple[str, ...]
    steps: tuple[str, ...]
    note: str


def _soup(rng: Random) -> _Recipe:
    first, second = rng.sample(_VEGETABLES, 2)
    starch, fat, herb, spice = rng.choice(_STARCHES), rng.choice(_FATS), rng.choice(_HERBS), rng.choice(_SPICES[:4])
    minutes, litres = rng.randrange(15, 45, 5), rng.randint(1, 2)
    name = sentence(first.name.removesuffix("es") if first.name in ("tomatoes", "potatoes") else first.name[:-1])
    liquid = rng.choice(("water", "vegetable stock"))
    dish = rng.choice(("Soup", "Stew"))
    return _Recipe(
        f"{name} and {sentence(starch.name)} {dish}",
        rng.randint(2, 6),
        minutes + 10,
        (
            *(f"{item.amount(rng)} {item.name}" for item in (first, second)),
            *(f"{item.amount(rng)} of {item.name}" for item in (starch, fat)),
            f"{litres} l of {liquid}",
            f"fresh {herb}, salt and {spice}",
        ),
        (
            f"{sentence(first.cut)} the {first.name} and {second.cut} the {second.name}.",
            f"Heat the {fat.name} in a {rng.choice(('large', 'deep', 'heavy'))} pot and fry the {second.name}"
            f" for {rng.randint(3, 9)} minutes.",
            f"Add the {first.name}, the {starch.name} and the {liquid}.",
            f"{rng.choice(_COOK)} for {minutes} minutes, then season with salt and {spice}.",
            f"Serve {rng.choice(('hot', 'warm'))} with the {herb}.",
        ),
        f"Keeps for {rng.randint(2, 4)} days in the fridge.",
    )


def _salad(rng: Random) -> _Recipe:
    items = rng.sample(_VEGETABLES, 2) + rng.sample(_FRUITS, 1)
    herb, spice = rng.choice(_HERBS), rng.choice(_SPICES[:4])
    fat = _FATS[0]
    cold = rng.choice((10, 15, 20, 30))
    names = [item.name for item in items]
    return _Recipe(
        f"{sentence(rng.choice(('summer', 'winter', 'garden', 'picnic')))} Salad with {sentence(names[0])}",
        rng.randint(2, 4),
        cold + 10,
        (
            *(f"{item.amount(rng)} {item.name}" for item in items),
            f"{fat.amount(rng)} of {fat.name}",
            f"fresh {herb}, salt and {spice}",
        ),
        (
            *(f"{sentence(item.cut)} the {item.name}." for item in items),
            f"Mix the {listed(names)} in a bowl.",
            f"Stir in the {fat.name}, the {herb}, salt and {spice}.",
            f"Let the salad rest for {cold} minutes before you serve it.",
        ),
        f"Goes well with {rng.choice(('bread', 'cheese', 'grilled fish', 'boiled eggs'))}.",
    )


def _cake(rng: Random) -> _Recipe:
    fruit, spice = rng.choice(_FRUITS), rng.choice(_SPICES[3:])
    flour, sugar, eggs = rng.randrange(150, 400, 50), rng.randrange(50, 200, 25), rng.randint(2, 5)
    butter, heat, minutes = rng.randrange(50, 200, 25), rng.randrange(160, 210, 10), rng.randrange(25, 60, 5)
    shape = rng.choice(("Cake", "Bread", "Muffins", "Tart"))
    name = sentence(fruit.name.removesuffix("es") if fruit.name == "peaches" else fruit.name[:-1])
    tin = "tin" if shape != "Muffins" else "muffin tin"
    return _Recipe(
        f"{name} {shape}",
        rng.randint(4, 10),
        minutes + 20,
        (
            f"{fruit.amount(rng)} {fruit.name}",
            f"{flour} g of flour",
            f"{sugar} g of sugar",
            f"{butter} g of butter",
            f"{eggs} eggs",
            f"1 teaspoon of {spice}",
        ),
        (
            f"Heat the oven to {heat} degrees and butter a {rng.choice(('round', 'small', 'large'))} {tin}.",
            f"Beat the butter with the sugar, then add the {eggs} eggs one by one.",
            f"Fold in the flour and the {spice}.",
            f"{sentence(fruit.cut)} the {fruit.name} and stir them into the dough.",
            f"Bake for {minutes} minutes until {rng.choice(('golden', 'brown', 'firm'))}.",
            f"Let it cool for {rng.choice((5, 10, 15))} minutes.",
        ),
        f"Serve with {rng.choice(('cream', 'yoghurt', 'tea', 'honey', 'ice cream'))}.",
    )


def document(rng: Random) -> str:
    """One recipe: title, yield, ingredients as a list, numbered steps, sometimes a note."""
    recipe = rng.choice((_soup, _salad, _cake))(rng)
    lines = [f"Recipe: {recipe.title}", f"Serves {recipe.serves}. Ready in {recipe.minutes} minutes.", ""]
    lines += ["Ingredients:", *(f"- {item}" for item in recipe.ingredients), ""]
    lines += ["Steps:", *(f"{number}. {step}" for number, step in enumerate(recipe.steps, 1))]
    if rng.random() < 0.5:
        lines += ["", f"Note: {recipe.note}"]
    return "\n".join(lines)
