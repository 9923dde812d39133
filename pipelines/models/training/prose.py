"""Sentences in wider English than the facts need: what keeps copying honest on texts that nobody has templated."""

import words

_list = words._list

NAMES = _list("""lemon, salt, potato, cabbage, valley, workshop, postage, screwdriver, laptop, coat, picnic, finger, blade, spine, knife, bone, freezer, hedge, roof, sprinkler, tap, reducer, barrel, ink, nib, bottle, page, bridge, pilot, storm, ship,
    lamp, weather, player, round, hiker, paw, coin, lid, stool, camp, compost, ball, bean, pea, microphone, camera, cabin, drone, charge, pad, plate, cell, gram, yeast, flour, espresso, platform, loaf, dough, liner, net, mesh, blackbird, hedgehog, bush,
    frame, summer, stamp, letter, choice, wedding, invitation, spoon, stick, wax, wall, sheet, holiday, column, week, school, month, calendar, nobody, people, breakfast, query, bottom, inside, outside, pepper, curry, pesto, plug, cloud, energy, meter,
    thread, metre, concrete, hardware, sleeve, end, drive, fall, tyre, saddle, pedal, stabiliser, child, parent, gravity, series, piece, ramp, funnel, bell, marble, seam, rucksack, strap, day, hike, pocket, rain, gear, cover, base, back, length, hip,
    water, root, butt, rubber, hose, mulch, frames, video, screen, case, battery, box, reading, price, taste, colour, sugar, glass, drop, steam, roast, wine, tomato, iron, oven, knob, table, valve, coffee, stove, heat, grandmother, dishwasher, river,
    clothes, canoe, trip, sidecar, cord, ring, brake, basket, bowl, salad, sharpener, pencil, lead, drawing, mug, refill, granite, paste, notebook, index, ribbon, plank, cone, nail, mountain, kettle, whistle, signal, station, carpet, mirror, hinge""")
ACTIONS = _list("""holds, carries, slides, cuts, keeps, falls, stays, reads, edits, sheds, takes, listens, cancels, rings, plays, charges, bakes, braises, washes, dries, lifts, opens, closes, doubles, weighs, measures, switches, costs, works, adjusts, threads,
    covers, runs, sweats, needs, argues, builds, fits, stretches, catches, protects, prints, draws, writes, tears, leaves, rots, ties, feeds, dilutes, makes, brings, tilts, pairs, pulls, replaces, wears, remaps, sharpens, hardens, polishes, grinds, follows,
    supports, rests, turns, bends, holds on, lets go, hangs, stops, starts, blinks, glows, drips, pours, seals, breathes, floats, rolls, clips, drops, pounds""")
QUALITIES = _list("""good, wet, green, narrow, thin, soft, hard, rough, flat, sharp, loose, fine, strong, whole, open, raw, spare, short, front, rear, real, true, wide, own, old, new, first, last, third, certified, rounded, polished, forged, rolled, welded, woven,
    knitted, glued, folded, numbered, recycled, organic, stabilised, washable, waterproof, removable, adjustable, suitable, enough, balanced, posted, blank, damp, cold-pressed, acid-free, oven-proof, non-slip, machine-washable, hand-soldered, flat-packed""")
CODES = _list("IP67, USB-C, USB 3.2, AES-256, 4K, PM2.5, NPK 3-1-5, Bluetooth 5.3, HDMI, DAB+, FSC, 63 HRC, 2.4 GHz, 5.3K, 99 % sRGB, KVM, A2, AAA, 1080p, WPA3, 2000 MB/s, 1000 ppm, 300 dpi, 24/7")
# A material or a colour that is none of the product's own would teach the wrong thing.
NAMES = [name for name in NAMES if name not in words.MATERIALS + words.COLORS]
QUALITIES = [quality for quality in QUALITIES if quality not in words.COLORS]
OPENERS = _list("Because of, Without, Despite, Thanks to, Instead of, Under, Behind, Above, Beside, Since, Against, Between, Around")


def _noun(writer):
    chance = writer.rng.random()
    if chance < 0.22:
        return writer.name().lower()
    word = writer.pick(NAMES)
    return word + ("s" if chance > 0.75 and not word.endswith("s") else "")


def _verb(writer):
    return writer.name().lower() + "s" if writer.maybe(0.12) else writer.pick(ACTIONS)


def _quality(writer):
    chance = writer.rng.random()
    if chance < 0.12:
        return f"{_noun(writer)}-{writer.pick(['proof', 'friendly', 'free', 'resistant', 'safe', 'bound', 'sided', 'like'])}"
    return writer.name().lower() + writer.pick(["ed", "ing", "y", "ish"]) if chance < 0.25 else writer.pick(QUALITIES)


def english(writer):
    """A sentence about nothing in particular."""
    noun, verb, quality, number = lambda: _noun(writer), lambda: _verb(writer), lambda: _quality(writer), lambda: writer.number(2, 90)
    phrase = lambda: writer.pick([lambda: f"the {noun()}", lambda: f"a {quality()} {noun()}", lambda: f"the {quality()} {noun()}", lambda: f"every {noun()}", lambda: f"{quality()} {noun()}", lambda: f"your {noun()}", lambda: f"{number()} {noun()}", lambda: writer.name()])()
    clause = lambda: writer.pick([lambda: f"{phrase()} {verb()} {phrase()}", lambda: f"{phrase()} {verb()}", lambda: f"{phrase()} is {quality()}", lambda: f"it {verb()} {phrase()} in {phrase()}", lambda: f"you can {writer.pick(ACTIONS).split()[0].rstrip('s')} {phrase()} with {phrase()}"])()
    text = writer.pick([
        lambda: f"{clause()}, {writer.pick(['so that', 'because', 'and', 'but', 'while', 'until', 'as', 'which means'])} {clause()}", lambda: f"{writer.pick(OPENERS)} {phrase()}, {clause()}", lambda: f"{clause()}: {phrase()}, {phrase()} and {phrase()}",
        lambda: f"{phrase()} of {phrase()}, {quality()} and {quality()}", lambda: f"If {clause()}, {clause()}", lambda: f"{quality()}, {quality()}, {quality()}", lambda: f"{clause()} after {number()} {noun()}", lambda: f"{writer.pick(CODES)}, {phrase()}, {writer.pick(CODES)}",
        lambda: f"{phrase()} with {phrase()} and {phrase()}", lambda: f"No {noun()}, no {noun()} to {writer.pick(ACTIONS).split()[0].rstrip('s')} later", lambda: f"Please do not {writer.pick(ACTIONS).split()[0].rstrip('s')} {phrase()}, {clause()}", lambda: f"{clause()} ({phrase()})",
        lambda: f"'{writer.name()} {noun()}' {verb()} {phrase()}; {clause()}", lambda: f"One {noun()} {verb()}, two {noun()}s {verb()}", lambda: f"{clause()} to {writer.pick(CODES)}", lambda: f"{number()} degrees, {number()} times, {number()} %: {clause()}", clause, clause,
    ])()
    return text[0].upper() + text[1:]


def material(writer, name, part):
    """More ways to say what a thing is made of."""
    noun, quality = _noun(writer), _quality(writer)
    text = writer.pick([f"{name} {part} and {quality} {noun}", f"{quality} {name} {part}, {quality} {noun}", f"Handle of {quality} {name}", f"Filled with {quality} {name}", f"{name} {noun} with a {quality} {part}", f"A {name} {noun} that {_verb(writer)} the {noun}", f"{quality} {noun} in {name}",
                        f"Of {name}, so the {noun} {_verb(writer)}", f"The {part}, of {name}, {_verb(writer)} {noun}s", f"{writer.number(2, 30)} {noun}s of {name}", f"{name}, {quality} {noun}, {quality} {part}", f"Made by hand from {quality} {name}"])
    return text if text.startswith("⟦") else text[0].upper() + text[1:]


def weight(writer, amount):
    """More ways to say how heavy it is."""
    noun = _noun(writer)
    return writer.pick([f"At {amount} it {_verb(writer)} the {noun}", f"Heavy enough at {amount} to stay on the {noun}", f"{amount}, carries {writer.number(2, 30)} kg well", f"{_quality(writer).capitalize()} {noun}, {amount}", f"With its {amount} a {noun}", f"{amount} without the {noun}"])


def size(writer, measure):
    """More ways to say how large it is."""
    noun, part = _noun(writer), _noun(writer)
    return writer.pick([f"{_quality(writer).capitalize()} {noun}, {measure}, {part}", f"{measure} for {noun}s", f"The {noun} is {measure}", f"{measure} of {noun}", f"It {_verb(writer)} {measure} of {noun}", f"{measure}; {_verb(writer)} {noun}s", f"Up to {measure} of {noun}", f"{noun.capitalize()}s of {measure}"])


def title(writer, noun):
    """A product's name with one or two words before it."""
    return " ".join([_quality(writer) if writer.maybe(0.5) else _noun(writer) for _ in range(writer.pick([1, 1, 2]))] + [noun])
