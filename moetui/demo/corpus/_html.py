"""HTML fragments with tags that nest and close: lists, tables, forms, menus, articles, cards."""

from collections.abc import Callable
from html import escape
from random import Random

_TITLES = ("Welcome", "Our Garden", "Contact", "News", "About Us", "Summer Fair", "Opening Hours", "Photo Album")
_TOPICS = ("garden", "library", "market", "museum", "school", "harbour", "bakery", "cinema")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_GOODS = ("Bread", "Milk", "Tea & Cake", "Coffee", "Flowers", "Books", "Maps", "Tickets", "Postcards", "Honey")
_CLASSES = ("main", "box", "card", "note", "wide", "menu")
_FIELDS = (("Name", "text"), ("Email", "email"), ("Phone", "tel"), ("Date", "date"), ("Password", "password"))
_Tree = list[str]


def _tag(name: str, attributes: dict[str, str], children: _Tree) -> _Tree:
    """The lines of an element around already indented children."""
    written = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return [f"<{name}{written}>", *(f"  {line}" for line in children), f"</{name}>"]


def _inline(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _link(rng: Random) -> str:
    topic = rng.choice(_TOPICS)
    return f'<a href="/{topic}.html">{topic.capitalize()}</a>'


def _paragraph(rng: Random) -> str:
    topic, day, hour = rng.choice(_TOPICS), rng.choice(_DAYS), rng.randint(8, 11)
    text = rng.choice(
        (
            f"The {topic} opens on <b>{day}</b> at {hour}.",
            f"Visit the <em>{topic}</em> every {day}.",
            f"See you at the {_link(rng)} on {day}.",
            f"The {topic} is <strong>closed</strong> on {day}.",
        )
    )
    return f"<p>{text}</p>"


def _list(rng: Random) -> _Tree:
    name = rng.choice(("ul", "ul", "ol"))
    items = [_inline("li", item) for item in rng.sample(_GOODS, rng.randint(2, 4))]
    return _tag(name, {}, items)


def _nested_list(rng: Random) -> _Tree:
    children = []
    for topic in rng.sample(_TOPICS, 2):
        children += _tag("li", {}, [_inline("b", topic.capitalize()), *_list(rng)])
    return _tag("ul", {"class": rng.choice(_CLASSES)}, children)


def _table(rng: Random) -> _Tree:
    rows = [f"<tr>{_inline('th', 'Item')}{_inline('th', 'Price')}</tr>"]
    rows += [
        f"<tr>{_inline('td', item)}{_inline('td', f'{rng.randint(1, 20)}.{rng.choice((0, 5))}0')}</tr>"
        for item in rng.sample(_GOODS, rng.randint(2, 4))
    ]
    return _tag("table", {}, rows)


def _hours(rng: Random) -> _Tree:
    start = rng.randint(0, 3)
    days = _DAYS[start : start + rng.randint(2, 4)]
    rows = [
        f"<tr>{_inline('td', day)}{_inline('td', f'{rng.randint(8, 10)} - {rng.randint(16, 20)}')}</tr>" for day in days
    ]
    return _tag("table", {"class": "hours"}, rows)


def _form(rng: Random) -> _Tree:
    children = []
    for label, kind in rng.sample(_FIELDS, rng.randint(1, 3)):
        key = label.lower()
        children += [f'<label for="{key}">{label}</label>', f'<input type="{kind}" id="{key}" name="{key}">']
    children.append(_inline("button", rng.choice(("Send", "Save", "Log in", "Search"))))
    return _tag("form", {"action": f"/{rng.choice(_TOPICS)}", "method": rng.choice(("get", "post"))}, children)


def _menu(rng: Random) -> _Tree:
    topics = rng.sample(_TOPICS, rng.randint(2, 4))
    return _tag("nav", {}, [f'<a href="/{topic}.html">{topic.capitalize()}</a>' for topic in topics])


def _figure(rng: Random) -> _Tree:
    topic = rng.choice(_TOPICS)
    picture = f'<img src="/images/{topic}-{rng.randint(1, 9)}.png" alt="The {topic}">'
    return _tag("figure", {}, [picture, _inline("figcaption", f"The {topic} on {rng.choice(_DAYS)}")])


_PARTS: tuple[Callable[[Random], _Tree], ...] = (_list, _nested_list, _table, _hours, _form, _menu, _figure)


def _section(rng: Random) -> _Tree:
    children = [_inline(rng.choice(("h2", "h3")), rng.choice(_TITLES)), _paragraph(rng)]
    children += rng.choice(_PARTS)(rng)
    tag = rng.choice(("div", "section", "article"))
    return _tag(tag, {"class": rng.choice(_CLASSES)} if tag == "div" else {}, children)


def _page(rng: Random) -> _Tree:
    title = rng.choice(_TITLES)
    body = _tag("body", {}, [_inline("h1", title), _paragraph(rng), *rng.choice((_list, _menu, _table))(rng)])
    return ["<!DOCTYPE html>", *_tag("html", {"lang": "en"}, [*_tag("head", {}, [_inline("title", title)]), *body])]


def document(rng: Random) -> str:
    """One fragment or a whole small page, indented by two."""
    return "\n".join(rng.choice((_section, _section, _page, *_PARTS))(rng))
