r"""Regular expressions as grammars: the part of the syntax that ECMAScript, Python and Rust read alike, and exactly.

Literals, `.`, classes, `\d \w \s` and their complements, groups (plain, `(?:...)`, named), alternatives, quantifiers (a lazy one
matches the same texts), `^` and `$` at the ends of alternatives. What has no finite automaton (lookaround, backreferences), what
depends on a mode (flags), and what the three languages read differently is refused, naming it.

Where they differ in *which* characters belong to a class, only those that belong to it everywhere are produced: `\d` is 0-9,
`\w` is ASCII, `.` is no line end of any kind, `\W` is ASCII too, `[^\d]` has no digit of any script. So a text that is produced
matches under each of them; not every text that matches can be produced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ..runtime.errors import ConstraintError
from .grammar import EMPTY, MAX_CHAR, Alt, Chars, Literal, Node, Repeat, Seq, alt, any_of, chars, complement, repeat, seq
from .limits import REGEX_BYTES, too_complex

ANY = chars([(0, MAX_CHAR)])
MAX_DEPTH = 64
MAX_REPEATS = 100_000
MAX_BRANCHES = 256


def whole(pattern: str) -> Node:
    """What matches `pattern` from the first character to the last. Raises ConstraintError: invalid_grammar for a syntax
    error, unsupported_regex for what is not enforced, grammar_too_complex over the caps."""
    return alt(*(seq(*body) for _, body, _ in _branches(_parse(pattern))))


def searched(pattern: str, *, wide: bool = False) -> Node:
    """What contains a match of `pattern`, as JSON Schema's `pattern` means it; `^` and `$` bind it to the ends.

    wide: what contains one in any of the three languages, and not only what does in all of them: for a text that must not."""
    any_text = repeat(ANY, 0, None)
    end = repeat(Literal("\n"), 0, 1) if wide else EMPTY  # Python's `$` also stands before a last line end
    found = []
    for at_start, body, at_end in _branches(_parse(pattern, wide=wide)):
        found.append(seq(EMPTY if at_start else any_text, *body, end if at_end else any_text))
    return alt(*found)


# ---- anchors --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Anchor:
    """`^` or `$`, until `_branches` has resolved it."""

    sign: str


def _branches(node: Node) -> Iterator[tuple[bool, tuple[Node, ...], bool]]:
    """The alternatives of a parsed pattern as (bound to the start, items, bound to the end)."""
    for items in _spread([node]):
        first = 0
        while first < len(items) and items[first] == _Anchor("^"):
            first += 1
        last = len(items)
        while last > first and items[last - 1] == _Anchor("$"):
            last -= 1
        if any(_has_anchor(item) for item in items[first:last]):
            raise _unsupported("`^` or `$` in the middle of the pattern")
        yield first > 0, tuple(items[first:last]), last < len(items)


def _spread(items: list[Node]) -> list[list[Node]]:
    """The sequences that `items` stand for, with every alternative that contains an anchor written out."""
    open_lists, done = [items], []
    while open_lists:
        current = open_lists.pop()
        at = next((i for i, item in enumerate(current) if isinstance(item, Seq | Alt) and _has_anchor(item)), None)
        if at is None:
            done.append(current)
        elif isinstance(inner := current[at], Seq):
            open_lists.append([*current[:at], *inner.items, *current[at + 1 :]])
        elif isinstance(inner, Alt):
            open_lists.extend([*current[:at], item, *current[at + 1 :]] for item in reversed(inner.items))
        if len(open_lists) + len(done) > MAX_BRANCHES:
            raise too_complex(f"The regex has more than {MAX_BRANCHES} alternatives with `^` or `$` in them.")
    return done


def _has_anchor(node: Node | _Anchor) -> bool:
    match node:
        case _Anchor():
            return True
        case Seq(items) | Alt(items):
            return any(_has_anchor(item) for item in items)
        case Repeat(item, _, _):
            return _has_anchor(item)
    return False


# ---- characters -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Class:
    """A class of characters: `sure` belong to it in every language, `maybe` in some (a superset)."""

    sure: Chars
    maybe: Chars

    def inverted(self) -> _Class:
        return _Class(complement(self.maybe), complement(self.sure))


_LINE_ENDS = any_of("\n\r\u2028\u2029")
_DIGITS = chars([(0x30, 0x39)])
_WORD = chars([(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
_SPACE = any_of(" \t\n\r\f\v")
_BEYOND_ASCII = (0x80, MAX_CHAR)
_SPACE_SOMEWHERE = chars(
    [*_SPACE.ranges, (0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x200B)]
    + [(0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]
)


@cache
def _digits_somewhere() -> Chars:
    first, last = 0x660, 0x1FBF9  # the first and the last digit outside ASCII, as of Unicode 15
    return chars([*_DIGITS.ranges, *((c, c) for c in range(first, last + 1) if chr(c).isdecimal())])


def _named_class(letter: str) -> _Class:
    """The class of `\\d`, `\\D`, `\\w`, `\\W`, `\\s`, `\\S`."""
    match letter.lower():
        case "d":
            found = _Class(_DIGITS, _digits_somewhere())
        case "w":
            found = _Class(_WORD, chars([*_WORD.ranges, _BEYOND_ASCII]))
        case _:
            found = _Class(_SPACE, _SPACE_SOMEWHERE)
    return found.inverted() if letter.isupper() else found


def _one(code: int) -> _Class:
    single = chars([(code, code)])
    return _Class(single, single)


# ---- the parser -----------------------------------------------------------------------------------------------------

_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}


def _parse(pattern: str, *, wide: bool = False) -> Node:
    size = len(pattern.encode("utf-8", "surrogatepass"))
    if size > REGEX_BYTES:
        raise too_complex(f"The regex has {size} bytes; at most {REGEX_BYTES} are taken.")
    parser = _Parser(pattern, wide)
    node = parser.alternatives(0)
    if parser.at < len(pattern):
        raise parser.invalid("an unmatched `)`")
    _check_repeats(node, 1)
    return node


def _check_repeats(node: Node, times: int) -> None:
    """Refuses nested counts such as `(a{1000}){1000}`, whose product is what an automaton has to count."""
    match node:
        case Seq(items) | Alt(items):
            for item in items:
                _check_repeats(item, times)
        case Repeat(item, least, most):
            total = times * max(1, least if most is None else most)
            if total > MAX_REPEATS:
                raise too_complex(f"The regex repeats a part up to {total} times; at most {MAX_REPEATS} are taken.")
            _check_repeats(item, total)


class _Parser:
    """Recursive descent over one pattern; `at` is the next character, `wide` says which side of a class counts."""

    def __init__(self, pattern: str, wide: bool):
        self.pattern = pattern
        self.wide = wide
        self.at = 0

    def invalid(self, what: str) -> ConstraintError:
        return ConstraintError(f"The regex has {what} at character {self.at}: {_shown(self.pattern)}", code="invalid_grammar")

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def take(self, text: str) -> bool:
        """Moves over `text` if it comes next."""
        if self.peek(text):
            self.at += len(text)
            return True
        return False

    def next(self) -> str:
        if self.at >= len(self.pattern):
            raise self.invalid("an unexpected end")
        self.at += 1
        return self.pattern[self.at - 1]

    def alternatives(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise too_complex(f"The regex nests groups more than {MAX_DEPTH} deep.")
        items = [self.sequence(depth)]
        while self.take("|"):
            items.append(self.sequence(depth))
        return alt(*items)

    def sequence(self, depth: int) -> Node:
        items: list[Node] = []
        while self.at < len(self.pattern) and not self.peek("|") and not self.peek(")"):
            items.append(self.quantified(self.atom(depth)))
        return seq(*items)

    def atom(self, depth: int) -> Node:
        match char := self.next():
            case "(":
                return self.group(depth)
            case "[":
                return self.bracket()
            case ".":
                return complement(any_of("\n") if self.wide else _LINE_ENDS)
            case "^" | "$":
                return _Anchor(char)  # type: ignore[return-value]  # resolved by _branches before anybody else looks
            case "\\":
                return self.side(self.escape(in_class=False))
            case "*" | "+" | "?":
                raise self.invalid(f"a `{char}` with nothing before it")
        if 0xD800 <= ord(char) <= 0xDFFF:
            raise self.invalid("a lone surrogate")
        if char == "{" and self.counts() is not None:
            raise self.invalid("a count with nothing before it")
        return Literal(char)

    def group(self, depth: int) -> Node:
        if self.take("?"):
            if not self.take(":"):
                self.named_group()
        node = self.alternatives(depth + 1)
        if not self.take(")"):
            raise self.invalid("a group that is not closed")
        return node

    def named_group(self) -> None:
        """Moves over `<name>` or `P<name>`; every other `(?` is refused."""
        for sign in ("=", "!", "<=", "<!"):
            if self.peek(sign):
                raise _unsupported(f"lookaround `(?{sign}`")
        if not (self.take("P<") or self.take("<")):
            raise _unsupported(f"`(?{self.pattern[self.at : self.at + 1]}`, an inline flag or special group")
        end = self.pattern.find(">", self.at)
        if end < 0 or not self.pattern[self.at : end].isidentifier():
            raise self.invalid("a group name that is not a name")
        self.at = end + 1

    def quantified(self, item: Node) -> Node:
        before = self.at
        least, most = 1, 1
        if self.take("*"):
            least, most = 0, None
        elif self.take("+"):
            least, most = 1, None
        elif self.take("?"):
            least, most = 0, 1
        elif self.take("{"):
            counts = self.counts()
            if counts is None:
                self.at = before
                return item
            least, most = counts
        else:
            return item
        if isinstance(item, _Anchor):
            raise _unsupported("a quantifier after `^` or `$`")
        self.take("?")  # lazy: the same texts
        if self.peek("+"):
            raise _unsupported("a possessive quantifier")
        if self.peek("*") or self.peek("?") or self.at_count():
            raise self.invalid("a quantifier after a quantifier")
        return repeat(item, least, most)

    def at_count(self) -> bool:
        """True when a count such as `{2,3}` comes next; does not move."""
        before = self.at
        found = self.take("{") and self.counts() is not None
        self.at = before
        return found

    def counts(self) -> tuple[int, int | None] | None:
        """`m}`, `m,}` or `m,n}` after a `{`, or None (and not moved) when the `{` is a literal."""
        end = self.pattern.find("}", self.at)
        text = self.pattern[self.at : end] if end >= 0 else ""
        low, comma, high = text.partition(",")
        if comma and not low and high.isdecimal():
            raise _unsupported("the count `{,n}`, which ECMAScript reads as text (write `{0,n}`)")
        if not (low.isascii() and low.isdecimal() and (not high or (high.isascii() and high.isdecimal()))):
            return None
        least, most = int(low), int(high) if high else None if comma else int(low)
        if most is not None and most < least:
            raise self.invalid(f"a count {{{text}}} that is out of order")
        self.at = end + 1
        return least, most

    def bracket(self) -> Chars:
        negated = self.take("^")
        if self.peek("]"):
            raise _unsupported("a class that begins with `]`, which languages read differently (escape it)")
        found: list[_Class] = []
        while not self.take("]"):
            for sign in ("[:", "[=", "[.", "&&", "--", "~~", "||"):
                if self.peek(sign):
                    raise _unsupported(f"`{sign}` inside a class, which languages read differently (escape it)")
            found.append(self.class_item())
        sure = chars(r for item in found for r in item.sure.ranges)
        maybe = chars(r for item in found for r in item.maybe.ranges)
        found_class = _Class(sure, maybe)
        return self.side(found_class.inverted() if negated else found_class)

    def side(self, found: _Class) -> Chars:
        """The characters that count."""
        return found.maybe if self.wide else found.sure

    def class_item(self) -> _Class:
        first = self.class_character()
        if not self.peek("-") or self.peek("-]"):
            return first
        before = self.at
        self.take("-")
        last = self.class_character()
        low, high = _code(first), _code(last)
        if low is None or high is None:
            self.at = before + 1  # `[\w-.]`: the dash is itself
            dash = _one(ord("-"))
            return _Class(chars(first.sure.ranges + dash.sure.ranges), chars(first.maybe.ranges + dash.maybe.ranges))
        if high < low:
            raise self.invalid("a range that is out of order")
        span = chars([(low, high)])
        return _Class(span, span)

    def class_character(self) -> _Class:
        char = self.next()
        if char == "\\":
            return self.escape(in_class=True)
        if 0xD800 <= ord(char) <= 0xDFFF:
            raise self.invalid("a lone surrogate")
        return _one(ord(char))

    def escape(self, *, in_class: bool) -> _Class:
        char = self.next()
        if char in "dDwWsS":
            return _named_class(char)
        if char in _CONTROL:
            return _one(ord(_CONTROL[char]))
        if char in "xu":
            return _one(self.hexadecimal(char, 2 if char == "x" else 4))
        if char == "b" and in_class:
            return _one(8)
        if char == "0" and not self.pattern[self.at : self.at + 1].isdecimal():
            return _one(0)
        if char.isdecimal() or char == "k":
            raise _unsupported(f"the backreference `\\{char}`")
        if char.isalnum() or ord(char) >= 0x80:
            raise _unsupported(f"the escape `\\{char}`")
        return _one(ord(char))

    def hexadecimal(self, letter: str, digits: int) -> int:
        text = self.pattern[self.at : self.at + digits]
        if len(text) < digits or any(c not in "0123456789abcdefABCDEF" for c in text):
            raise _unsupported(f"`\\{letter}` without {digits} hexadecimal digits")
        self.at += digits
        code = int(text, 16)
        if 0xD800 <= code <= 0xDFFF:
            raise _unsupported(f"the surrogate `\\u{text}`")
        return code


def _code(item: _Class) -> int | None:
    """The code point of a class of exactly one character."""
    ranges = item.sure.ranges
    return ranges[0][0] if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else None


def _unsupported(what: str) -> ConstraintError:
    return ConstraintError(
        f"The regex uses {what}, which cannot be enforced exactly. Rewrite it without.", code="unsupported_regex"
    )


def _shown(pattern: str) -> str:
    return pattern if len(pattern) <= 80 else pattern[:77] + "..."
