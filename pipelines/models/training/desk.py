"""Tickets as customers write them: names, numbers and things beside those that are asked for, and problems in many words."""

import re

import prose
import shop_words as shelf
import words

_list = shelf._list
SLOT = re.compile(r"\{(\w+)\}")

FIRST = _list("""Anna, Ben, Carla, David, Elena, Felix, Grace, Hugo, Ines, Jonas, Kate, Leo, Mira, Nils, Olga, Paul, Rosa, Sam, Tessa, Umar, Vera, Will, Yara, Zoe, Amir, Birgit, Chloe, Daniel, Emily,
    Frank, Gita, Harold, Irene, Jack, Karin, Liam, Marta, Noah, Oscar, Petra, Quentin, Rachel, Stefan, Thomas, Ursula, Victor, Wanda, Min-jun, Ji-woo, Priya, Hassan, Lucy, Peter, Sofia""")
LAST = _list("""Adler, Baker, Castillo, Dawson, Engel, Foster, Gruber, Holm, Ivanov, Jensen, Keller, Lund, Meyer, Novak, Olsen, Porter, Quinn, Rossi, Schmid, Turner, Ulrich, Vogel, Walsh, Young, Ziegler,
    Almeida, Brandt, Cooper, Duarte, Ellis, Fischer, Gallagher, Hughes, Iversen, Jones, Kowalski, Larsen, Moreau, Nagy, O'Brien, Patel, Reyes, Sato, Tanaka, Ueda, Varga, Winter, Kim, Park, Singh, Fraser""")
THINGS = _list("lid, handle, screen, zip, seam, wheel, battery, blade, button, hinge, cable, cover, strap, base, motor, lamp, valve, spring, sole, drawer, shelf, pump, leg, switch, display, nozzle, plug")
PROBLEMS = {
    "delivery": _list("""it has not arrived|nothing has been delivered so far|the courier says it was delivered but nothing came|the parcel went to my neighbour's old flat|the tracking page has shown the same line since {day}|
        I am still waiting for the parcel|it should have come on {day}|only one of {int} boxes came|the box was wet and torn open|the driver did not ring|the delivery date was changed {int} times|it was sent to the wrong street|
        half of the parcel is missing|the shipment has been in customs for {int} days|you sent me a {head} instead|the parcel came back to you""", "|"),
    "defect": _list("""the {part} is broken|the {part} broke on the first day|the {part} came off|it stopped working after {int} days|it does not turn on any more|the {part} leaks|the {part} makes a grinding noise|there is a crack in the {part}|
        the {part} is bent|the {part} gets too hot|the {part} is missing|the paint comes off the {part}|it smells of burnt plastic|the {part} does not close|it switches itself off after {int} minutes|the {part} is loose|two of the screws do not fit""", "|"),
    "billing": _list("""I was billed {amount} instead of {amount}|you charged my card twice|the invoice has the wrong address|the discount code did not work|I have not received my refund of {amount}|the VAT is missing on the bill|
        I paid for two but got one|the amount on the invoice is wrong|{amount} were taken from my account|I cancelled and was charged all the same|the shipping was free but I was charged {amount}|I never got an invoice""", "|"),
    "account": _list("""I can't sign in to my account|the reset mail does not come|my account has been locked since {day}|I am unable to change my e-mail address|your site says that my password is wrong|I cannot find my order history|
        the app logs me out all the time|somebody has changed my address|I still get the newsletter|the code in the text message is not accepted|my user name is spelled wrong|I cannot delete my payment card""", "|"),
    "question": _list("""does it come in a larger size|is the {part} made of metal|can I use it outdoors|how do I clean the {part}|will it fit a {head}|what is the difference between the two models|do you sell the {part} on its own|
        how long does shipping take|is it safe for children|can the {part} be replaced|does it work without the app|which size should I take|is there a version without a {part}""", "|"),
}
OPENERS = ["Hello, ", "Hi, ", "Hi there, ", "Dear team, ", "Good morning, ", "Hello support, ", "", "", ""]
PRODUCT = _list("""I bought your {X} {ago}|The {X} I bought {ago} worries me|It is about the {X}|I am writing about my {X}|{ago} I ordered a {X}|My new {X} came {ago}|We use your {X} at the office|I have the {X}|About the {X}|
    I got a {X} as a present|This concerns the {X}|We ordered one {X} {ago}|Regarding my {X}|Question about the {X}""", "|")
ORDER = _list("""My order number is {O}|Order {O}|Order no. {O}|The order is {O}|Order number: {O}|See order #{O}|It was order {O}|Order ID {O}|I placed order {O} {ago}|Reference: order {O}|The number of my order is {O}""", "|")
BOTH = _list("""I ordered the {X} {ago}, order {O}|My order {O} was a {X}|It is about the {X} from order {O}|In order {O} there was a {X}|My {X} (order {O}) came {ago}|The {X} in order {O} is the reason why I write|
    Order {O}: one {X}|I bought a {X} {ago} (order no. {O})|Order #{O}, a {X}""", "|")
REQUEST = _list("""Please send me a {R}|I would like a {R}|I'd like a {R}|I want a {R}|Can I have a {R}|Could you send a {R}|I am asking for a {R}|Please arrange a {R}|A {R} would be fine|What I need is a {R}|I expect a {R}|
    Please give me a {R}|Kindly arrange a {R} this week|I hope for a {R}""", "|")
ASIDE = _list("""I have been a customer since {year}|I called on {day} and spoke to {someone}|Your colleague {someone} could not help me|I paid {amount} for it|The tracking number is {digits}|My phone number is {digits}|The serial number is {digits}|
    The invoice number is {digits}|It was a present for {first}|I tried it {int} times|I have attached {int} photos|I already wrote on {day}|Please answer before {day}|I am really disappointed|Otherwise I am happy with it|Thank you for your help|
    I have waited for {int} days|This is my {nth} message|I live in {place}|The shop in {place} sent me to you|My {head} from another shop is fine|It worked well until {day}|We need it for {use}|I read the manual twice|{nonsense}|{nonsense}""", "|")
SIGNED = ["Regards,", "Kind regards,", "Best regards,", "Best,", "Thanks,", "Many thanks,", "Yours,", "Cheers,", "Sincerely,", "Thank you,", "Best wishes,", "Warm regards,", ""]


def fill(writer, template, facts):
    """The template with its slots filled; those in upper case are the marked facts."""
    pick, number = writer.pick, writer.number
    slots = {
        "day": lambda: pick(["Monday", "Tuesday", "Friday", "Sunday", f"{number(1, 28)} March", f"the {number(4, 20)}th", f"May {number(1, 28)}"]), "int": lambda: str(number(2, 30)), "head": lambda: pick(shelf.HEADS),
        "part": lambda: pick(THINGS), "amount": lambda: f"{number(5, 300)}{pick(['', '.50', '.90', '.00'])} {pick(['EUR', 'euros', 'dollars', 'pounds'])}", "ago": lambda: pick(["last week", f"{number(2, 9)} weeks ago", "in June", "yesterday", "last month"]),
        "year": lambda: str(number(2001, 2025)), "someone": lambda: person(writer), "first": lambda: pick(FIRST), "digits": lambda: "".join(str(number(0, 9)) for _ in range(number(6, 11))), "nth": lambda: pick(["first", "second", "third", "last"]),
        "place": lambda: writer.name(), "use": lambda: pick(shelf.USES), "nonsense": lambda: prose.english(writer),
    }
    slots |= {key: lambda value=value: value for key, value in facts.items()}
    return SLOT.sub(lambda slot: slots[slot.group(1)](), template)


def person(writer):
    """A name that is usual somewhere, and not one that is held out."""
    while True:
        name = f"{writer.pick(FIRST)} {writer.pick(LAST)}"
        if words.held_out(name) == writer.evaluation:
            return name


def ticket(writer, capital):
    """A ticket's marked text and its topic."""
    topic = writer.pick(list(PROBLEMS))
    noun = writer.pick(words.NOUNS[writer.pick(list(words.NOUNS))]) if writer.maybe(0.5) else f"{writer.pick(shelf.MODIFIERS)} {writer.pick(shelf.HEADS)}"
    if writer.maybe(0.25):
        noun = f"{writer.pick([writer.pick(shelf.COLORS), writer.pick(shelf.MATERIALS), writer.name()])} {noun}"
    facts = {"X": f"⟦product:{noun}⟧", "O": f"⟦order:{words.order_number(writer.rng, writer.evaluation)}⟧"}
    wish = writer.pick(words.REQUESTS[topic])
    facts["R"] = f"⟦request:{writer.pick(['full ', 'quick ', 'new ']) + wish if writer.maybe(0.15) else wish}⟧"
    stated = {field for field, chance in {"customer": 0.75, "order": 0.6, "product": 0.75 if topic != "account" else 0.15, "request": 0.5}.items() if writer.maybe(chance)}
    tell = lambda templates: fill(writer, writer.pick(templates), facts)
    parts = []
    if {"order", "product"} <= stated and writer.maybe(0.6):
        parts.append(tell(BOTH))
    else:
        parts += [tell(PRODUCT)] if "product" in stated else []
        parts += [tell(ORDER)] if "order" in stated else []
    problem = tell(PROBLEMS[topic])
    front = writer.pick(["", "", "", "Unfortunately ", "Sadly, ", "The problem: ", "But ", "Now ", "I am sorry to say that "] if topic != "question" else ["", "", "My question: ", "Just one thing: "])
    problem = f"{front}⟦problem:{problem if front else problem[0].upper() + problem[1:]}⟧{'?' if topic == 'question' else '.'}"
    parts.insert(writer.rng.randrange(len(parts) + 1) if writer.maybe(0.3) else len(parts), problem)
    if "request" in stated:
        parts.append(tell(REQUEST))
    for _ in range(writer.pick([0, 1, 1, 2, 3])):
        parts.insert(writer.rng.randrange(len(parts) + 1), tell(ASIDE))
    body = " ".join(part if part.endswith((".", "?")) else part + "." for part in map(capital, parts))
    body = writer.pick(OPENERS) + body
    if "customer" in stated:
        customer = f"⟦customer:{person(writer) if writer.maybe(0.6) else writer.person()}⟧"
        body = writer.pick([
            f"{body}\n\n{writer.pick(SIGNED)}\n{customer}", f"{body} {writer.pick(SIGNED)} {customer}", f"{body}\n{customer}", f"My name is {customer}. {body}", f"From: {customer}\n\n{body}", f"{customer} here. {body}",
            f"This is {customer}. {body}", f"{body} - {customer}"])
    return body, topic
