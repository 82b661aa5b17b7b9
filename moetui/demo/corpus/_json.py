"""JSON documents: people, orders, settings, readings, libraries, builds, nested and always valid."""

import json
from random import Random

_Value = str | int | float | bool | None | list["_Value"] | dict[str, "_Value"]

_NAMES = ("Ada", "Ben", "Carla", "Dev", "Elif", "Finn", "Grace", "Hana", "Ivan", "Jun")
_SURNAMES = ("Stone", "Rivera", "Okoro", "Berg", "Moreau", "Sato", "Khan", "Novak")
_CITIES = ("Lyon", "Oslo", "Porto", "Kyoto", "Quito", "Cairo", "Leeds", "Turin")
_ITEMS = ("lamp", "chair", "desk", "mug", "pen", "clock", "shelf", "rug")
_COLOURS = ("red", "blue", "green", "black", "white")
_ROLES = ("admin", "editor", "viewer", "guest")
_TAGS = ("new", "sale", "small", "large", "gift", "eco")
_HOSTS = ("alpha", "beta", "gamma", "delta")
_SENSORS = ("temperature", "humidity", "pressure", "light")


def _id(rng: Random) -> int:
    return rng.randint(1, 999)


def _address(rng: Random) -> _Value:
    return {"city": rng.choice(_CITIES), "zip": f"{rng.randint(100, 999)}0", "primary": rng.random() < 0.5}


def _user(rng: Random) -> _Value:
    first, last = rng.choice(_NAMES), rng.choice(_SURNAMES)
    user: dict[str, _Value] = {
        "name": f"{first} {last}",
        "id": _id(rng),
        "email": f"{first}.{last}@example.com".lower(),
        "age": rng.randint(18, 79),
        "active": rng.random() < 0.7,
    }
    if rng.random() < 0.6:
        user["address"] = _address(rng)
    roles: list[_Value] = [*rng.sample(_ROLES, rng.randint(1, 3))]
    user["roles"] = roles
    user["manager"] = rng.choice((None, rng.choice(_NAMES)))
    return user


def _order(rng: Random) -> _Value:
    items: list[_Value] = []
    total = 0
    for name in rng.sample(_ITEMS, rng.randint(1, 3)):
        price, quantity = rng.randint(2, 40), rng.randint(1, 3)
        total += price * quantity
        items.append({"item": name, "color": rng.choice(_COLOURS), "price": price, "quantity": quantity})
    return {
        "order": _id(rng),
        "customer": rng.choice(_NAMES),
        "items": items,
        "total": total,
        "paid": rng.random() < 0.5,
    }


def _settings(rng: Random) -> _Value:
    return {
        "name": f"{rng.choice(_HOSTS)}-{rng.randint(1, 9)}",
        "port": rng.choice((80, 443, 3000, 5432, 8000, 8080)),
        "debug": rng.random() < 0.3,
        "limits": {
            "memory": 2 ** rng.randint(6, 12),
            "timeout": rng.choice((5, 10, 30, 60)),
            "retries": rng.randint(0, 5),
        },
        "logging": {
            "level": rng.choice(("info", "debug", "error")),
            "file": rng.choice((None, "app.log", "server.log")),
        },
        "features": {name: rng.random() < 0.5 for name in rng.sample(("cache", "search", "email", "metrics"), 2)},
    }


def _readings(rng: Random) -> _Value:
    sensor = rng.choice(_SENSORS)
    value = float(rng.randint(10, 60))
    values: list[_Value] = []
    for _ in range(rng.randint(2, 5)):
        value = round(value + rng.randint(-9, 9) / 10, 1)
        values.append(value)
    return {"sensor": sensor, "id": _id(rng), "location": rng.choice(_CITIES), "values": values, "count": len(values)}


def _product(rng: Random) -> _Value:
    item = rng.choice(_ITEMS)
    tags: list[_Value] = [*rng.sample(_TAGS, rng.randint(1, 3))]
    size: dict[str, _Value] = {"width": rng.randint(5, 90), "height": rng.randint(5, 90)}
    return {
        "name": f"{rng.choice(_COLOURS)} {item}",
        "type": item,
        "price": rng.randint(2, 90) + rng.choice((0.0, 0.5)),
        "size": size,
        "tags": tags,
        "stock": rng.choice((0, rng.randint(1, 60))),
    }


def _tree(rng: Random, depth: int = 2) -> _Value:
    names = rng.sample(("src", "docs", "data", "lib", "test", "assets"), rng.randint(1, 2))
    children: list[_Value] = []
    for name in names:
        if depth and rng.random() < 0.5:
            children.append({"folder": name, "children": _children(rng, depth - 1)})
        else:
            children.append({"file": f"{name}.{rng.choice(('txt', 'md', 'csv'))}", "size": rng.randint(1, 99)})
    return {"folder": rng.choice(_HOSTS), "children": children}


def _children(rng: Random, depth: int) -> list[_Value]:
    tree = _tree(rng, depth)
    return tree["children"] if isinstance(tree, dict) and isinstance(tree["children"], list) else []


def _listing(rng: Random) -> _Value:
    make = rng.choice((_address, _product, _readings))
    rows: list[_Value] = [make(rng) for _ in range(2)]
    return rows


def document(rng: Random) -> str:
    """One JSON value, mostly indented by two, sometimes on one line."""
    value = rng.choice((_user, _user, _order, _settings, _readings, _product, _tree, _listing))(rng)
    return json.dumps(value, indent=2 if rng.random() < 0.75 else None)
