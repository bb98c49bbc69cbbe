"""What the synthetic text is about: facts that are fixed, names that are made up, and which of them are held out.

The split is by hash, so it needs no file and no state: a name, city, product or number of two digits or more belongs
to the held-out fifth or to training, for ever and for every seed.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache, lru_cache
from itertools import pairwise


def _pairs(text: str) -> dict[str, str]:
    """The mapping that "a:b c:d" writes down."""
    return {key: value for key, _, value in (pair.partition(":") for pair in text.split())}


CAPITALS = _pairs(
    "France:Paris Japan:Tokyo Italy:Rome Spain:Madrid Germany:Berlin England:London Egypt:Cairo Greece:Athens "
    "Russia:Moscow China:Beijing India:Delhi Norway:Oslo Sweden:Stockholm Finland:Helsinki Poland:Warsaw Austria:Vienna "
    "Portugal:Lisbon Ireland:Dublin Denmark:Copenhagen Hungary:Budapest Turkey:Ankara Iran:Tehran Peru:Lima Chile:Santiago "
    "Cuba:Havana Kenya:Nairobi Canada:Ottawa Thailand:Bangkok Vietnam:Hanoi Belgium:Brussels Morocco:Rabat "
    "Switzerland:Bern Netherlands:Amsterdam Croatia:Zagreb Scotland:Edinburgh Australia:Canberra")
OPPOSITES = _pairs(
    "hot:cold big:small fast:slow happy:sad light:dark high:low hard:soft wet:dry young:old full:empty rich:poor strong:weak "
    "early:late open:closed clean:dirty loud:quiet thick:thin near:far sweet:sour left:right long:short deep:shallow "
    "wide:narrow heavy:light cheap:expensive easy:difficult first:last inside:outside day:night good:bad "
    "black:white up:down true:false love:hate front:back begin:end")
COLOURS = _pairs(
    "grass:green snow:white blood:red coal:black lemon:yellow sky:blue carrot:orange chocolate:brown milk:white "
    "tomato:red night:black spinach:green banana:yellow ocean:blue pumpkin:orange cloud:white lavender:purple "
    "cherry:red sun:yellow frog:green elephant:grey flamingo:pink")
SOUNDS = _pairs(
    "dog:woof cat:meow cow:moo duck:quack sheep:baa pig:oink lion:roar bee:buzz horse:neigh snake:hiss owl:hoot "
    "frog:croak mouse:squeak wolf:howl")
YOUNG = _pairs(
    "dog:puppy cat:kitten cow:calf sheep:lamb horse:foal duck:duckling lion:cub pig:piglet goat:kid frog:tadpole "
    "swan:cygnet deer:fawn goose:gosling")
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
AFTER: dict[str, str] = dict(pairwise(NUMBERS))
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NEXT_DAY: dict[str, str] = dict(zip(DAYS, DAYS[1:] + DAYS[:1], strict=True))
HOMES = _pairs(
    "bird:nest bee:hive dog:kennel horse:stable spider:web bear:cave rabbit:burrow pig:sty fish:water lion:den")

CATEGORIES = {
    "fruit": "apple banana cherry grape lemon mango orange peach pear plum strawberry melon apricot".split(),
    "animal": "dog cat horse tiger rabbit lion wolf bear fox elephant monkey sheep cow".split(),
    "vegetable": "carrot potato onion spinach cabbage pumpkin cucumber lettuce pea bean leek celery turnip".split(),
    "colour": "red blue green yellow purple black white brown pink grey violet beige".split(),
    "vehicle": "car bus train truck bicycle plane boat tram ship taxi tractor scooter van".split(),
    "tool": "hammer saw drill wrench shovel axe pliers screwdriver rake ladder chisel".split(),
    "instrument": "piano violin guitar drum flute trumpet harp cello clarinet banjo organ".split(),
    "drink": "water tea coffee juice milk wine beer lemonade cocoa cider".split(),
    "sport": "football tennis swimming boxing hockey golf rugby skiing basketball volleyball".split(),
    "bird": "eagle robin sparrow owl parrot crow swan goose penguin pigeon".split(),
    "flower": "rose tulip daisy lily violet orchid poppy sunflower daffodil".split(),
    "furniture": "chair table sofa bed desk shelf wardrobe stool bench cupboard".split(),
}
PLURALS = {"fruit": "fruits", "animal": "animals", "vegetable": "vegetables", "colour": "colours", "vehicle": "vehicles",
           "tool": "tools", "instrument": "instruments", "drink": "drinks", "sport": "sports", "bird": "birds",
           "flower": "flowers", "furniture": "pieces of furniture"}
SENTIMENT = {
    "positive": ("wonderful great excellent fantastic lovely amazing perfect superb brilliant delightful awesome beautiful "
                 "outstanding charming good").split(),
    "negative": ("terrible awful horrible bad disgusting dreadful useless poor broken disappointing ugly boring annoying "
                 "worthless nasty").split(),
    "neutral": ("average ordinary normal okay standard usual typical plain regular common medium acceptable "
                "unremarkable fine moderate").split(),
}
FEELINGS = {  # verbs that carry the feeling; {x} is what it is about
    "positive": ["I love {x}", "I really enjoy {x}", "I adore {x}", "We liked {x} very much", "{x} made me happy",
                 "I am very pleased with {x}", "I would buy {x} again"],
    "negative": ["I hate {x}", "I really dislike {x}", "I regret buying {x}", "We did not like {x} at all", "{x} made me angry",
                 "I am very unhappy with {x}", "I want my money back for {x}"],
    "neutral": ["I have no opinion about {x}", "I do not mind {x}", "I neither like nor dislike {x}", "I received {x} today",
                "{x} does what it should", "I feel nothing special about {x}", "I have seen {x} before"],
}
TOPICS = {  # short messages and where they belong
    "billing": ["I was charged twice for {x}", "My invoice for {x} is wrong", "I want a refund for {x}",
                "Why was my credit card billed for {x}", "The payment for {x} failed"],
    "shipping": ["My parcel with {x} has not arrived", "Where is my delivery of {x}", "The package with {x} is late",
                 "When will you ship {x}", "The courier lost {x}"],
    "technical": ["The app crashes when I open {x}", "I cannot log in to see {x}", "There is an error message on {x}",
                  "{x} does not turn on", "The screen freezes when I use {x}"],
    "weather": ["It will rain in {c} tomorrow", "The sun is shining over {c}", "A storm is coming to {c}",
                "It is snowing in {c}", "The forecast for {c} is cloudy"],
    "sports": ["The team from {c} won the match", "The goalkeeper of {c} was injured", "The final score in {c} was a draw",
               "The coach of {c} praised the players", "The race in {c} ended early"],
    "food": ["The soup in {c} was too salty", "I cooked dinner with {x}", "This recipe needs flour and butter",
             "The restaurant in {c} serves fresh bread", "We had cake for dessert in {c}"],
}
PEOPLE = ("Anna Ben Clara David Emma Frank Grace Henry Iris Jack Kate Liam Mia Noah Olivia Peter Quinn Rosa Sam Tina Uma Victor "
          "Wendy Xavier Yara Zoe Alice Bob Carol Daniel Eve Felix George Hannah Ivan Julia Karl Laura Maria Nina Oscar Paul "
          "Rachel Simon Thomas Ursula Vera Walter Lucas Sofia Mateo Elena Omar Leila Kenji Aisha Priya Arjun Chen Sven Ingrid").split()
TOWNS = ("Hamburg Munich Lyon Porto Seville Milan Naples Turin Geneva Basel Antwerp Bruges Leeds Bristol York Oxford Boston Chicago "
         "Denver Seattle Dallas Austin Toronto Montreal Osaka Kyoto Mumbai Sydney Perth Krakow Gdansk Bergen Malmo Aarhus Tampere "
         "Cork Galway Graz Salzburg Lausanne Valencia Marseille Nice Bordeaux Dresden Leipzig Cologne").split()
GOODS = ("lamp chair table umbrella kettle laptop bicycle guitar camera phone backpack blanket pillow mirror clock radio printer "
         "toaster teapot notebook pencil jacket sweater scarf helmet hammer ladder carpet candle basket bottle mug vase drone tent "
         "keyboard monitor headset speaker wallet watch necklace bracelet puzzle kite skateboard piano violin drum telescope "
         "microscope suitcase curtain shovel bucket rope tractor wagon sofa desk stool").split()
ADJECTIVES = "red blue green yellow black white brown small large old new wooden cheap heavy round golden silver plastic".split()
JOBS = "doctor teacher baker farmer nurse pilot lawyer painter driver singer cook plumber gardener dentist writer".split()
THINGS = ("dog cat parrot horse hamster rabbit turtle goldfish sister brother mother father aunt uncle cousin daughter son wife "
          "husband neighbour boss teacher doctor dentist friend roommate coach boat car bicycle robot house village street school "
          "company band team hotel restaurant garden island project computer teddy dragon pony gym bank hairdresser puppy kitten").split()

ONSETS = ("b c d f g h j k l m n p r s t v w z br cr dr fr gr kr pr tr bl cl fl gl pl sl sh ch th st sp sk sn sm qu y x").split()
VOWELS = "a e i o u a e i o u ai ea ee ia io oa oo ou au ie y".split()
CODAS = ("", "", "", "", "n", "r", "l", "s", "m", "t", "k", "x", "nd", "rt", "sk", "th", "ng", "ll", "ck", "lf", "mp", "b", "d", "g", "p", "v", "z")
ENDINGS = ("", "", "", "", "ton", "ville", "burg", "ford", "ham", "dale", "port", "field", "by", "stad", "mouth")


@lru_cache(maxsize=200_000)
def held_out(word: str) -> bool:
    """Whether a name, product noun or decimal number belongs to the fifth that training never sees."""
    return hashlib.sha256(word.lower().encode()).digest()[0] % 5 == 0


@lru_cache(maxsize=1)
def fixed_words() -> frozenset[str]:
    """Lower-case words that stand in the fixed text; no made-up name may be one of them."""
    from . import patterns

    text = " ".join([patterns.__doc__ or ""] + [repr(v) for v in vars(patterns).values() if isinstance(v, (tuple, dict, list))])
    lists = (CAPITALS, OPPOSITES, COLOURS, SOUNDS, YOUNG, HOMES, AFTER, NEXT_DAY, CATEGORIES, SENTIMENT, FEELINGS, TOPICS, ADJECTIVES,
             JOBS, THINGS, PLURALS)
    text += " ".join(repr(part) for part in lists) + " he she new old upper lower port san difference windy properties feeling tip tips"
    text = text.replace("\\n", " ")
    return frozenset("".join(c if c.isalpha() else " " for c in text).lower().split())


class Draw:
    """Random words of one side of the split. Changes its generator with every call."""

    def __init__(self, rng: random.Random, unseen: bool, *, varied: bool = False):
        """unseen: of the held-out side. varied: sentences may be put together at random (`sentences.py`)."""
        self.rng, self.unseen, self.varied = rng, unseen, varied

    def _mine(self, word: str) -> bool:
        return held_out(word) == self.unseen and word.lower() not in fixed_words()

    def _until_mine(self, make) -> str:
        while not self._mine(word := make()):
            pass
        return word

    def _syllables(self) -> str:
        r = self.rng
        count = r.choice((1, 2, 2, 2, 2, 3, 3))
        parts = [r.choice(ONSETS) + r.choice(VOWELS) + r.choice(CODAS) for _ in range(count)]
        if r.random() < 0.15:
            parts[0] = r.choice("aeiou") + r.choice(CODAS[4:]) + parts[0]
        return "".join(parts)

    def _letters(self) -> str:
        return "".join(self.rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(self.rng.randint(3, 8)))

    def word(self) -> str:
        """A made-up lower-case word."""
        return self._until_mine(self._letters if self.rng.random() < 0.12 else self._syllables)

    def name(self) -> str:
        """A first name: one in four is a real one, the others are made up."""
        if self.rng.random() < 0.25:
            return self._until_mine(lambda: self.rng.choice(PEOPLE))
        return self.word().capitalize()

    def full_name(self) -> str:
        return f"{self.name()} {self.name()}" if self.rng.random() < 0.15 else self.name()

    def city(self) -> str:
        r = self.rng
        if r.random() < 0.25:
            return self._until_mine(lambda: r.choice(TOWNS))
        if r.random() < 0.06:
            return f"{r.choice(('New', 'Old', 'Upper', 'Lower', 'Port', 'San'))} {self.name()}"
        return self._until_mine(lambda: self._syllables() + r.choice(ENDINGS)).capitalize()

    def product(self) -> str:
        r = self.rng
        noun = self._until_mine(lambda: r.choice(GOODS)) if r.random() < 0.5 else self.word()
        return f"{r.choice(ADJECTIVES)} {noun}" if r.random() < 0.35 else noun

    def number(self, low: int, high: int) -> int:
        """A number in [low, high]; from two digits on it keeps to its side. One digit is on both sides."""
        while True:
            n = self.rng.randint(low, high)
            if n < 10 or held_out(str(n)) == self.unseen:
                return n

    def price(self) -> str:
        r = self.rng
        whole = str(self.number(*r.choice(((2, 9), (11, 99), (11, 99), (100, 999)))))
        return f"{whole}.{self.number(11, 99)}" if r.random() < 0.3 else whole

    def code(self) -> str:
        r = self.rng
        letters = self._until_mine(lambda: "".join(r.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(r.randint(1, 3))))
        return f"{letters}{r.choice(('-', ''))}{self.number(100, 99999)}"

    def pattern(self, group: tuple[str, ...]) -> str:
        """A sentence pattern of this side of the split."""
        return self.rng.choice(split_patterns(group)[1 if self.unseen else 0])


@cache
def split_patterns(group: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training, held out): one in five, rounded up, the first by hash. The first of the group, which is the most usual
    wording, is always trained."""
    ordered = sorted(group[1:], key=lambda p: hashlib.sha256(p.encode()).digest())
    cut = -(-len(group) // 5)
    return (group[0], *ordered[cut:]), tuple(ordered[:cut])
