"""Word lists of the synthetic corpus, written for it, and made-up names that never run out."""

import hashlib
import random


def _list(text):
    return [item.strip() for item in text.replace("\n", " ").split(",") if item.strip()]


NOUNS = {
    "garden": _list("""watering can, spade, pruning shears, secateurs, hose, soaker hose, rake, trowel, wheelbarrow, planter, flower pot, raised bed,
        twine, garden net, trellis, compost bin, seed tray, seed packet, tomato feed, plant food, potting soil, hoe, garden fork, hedge trimmer, lopper, grass seed,
        bulb planter, weeding knife, garden gloves, kneeling pad, rain gauge, bird feeder, cold frame, propagator, sprinkler, water butt, leaf rake, plant labels"""),
    "kitchen": _list("""frying pan, skillet, casserole, saucepan, stock pot, chef's knife, bread knife, chopping board, salad spinner, grater, whisk, ladle,
        mixing bowl, proving basket, baking tin, cake tin, rolling pin, coffee grinder, espresso maker, teapot, kettle, mug, plate, bowl, storage jar, food wraps,
        pepper mill, mortar and pestle, colander, kitchen scale, spice rack, lunch box, tongs, spatula, cutting board, wok, steamer, butter dish, apron, tea towel"""),
    "outdoor": _list("""tent, sleeping bag, hammock, backpack, hiking boots, trekking poles, camping stove, dry bag, rain jacket, headlamp, sleeping mat, tarp,
        water filter, canteen, base layer, down jacket, gaiters, camp chair, fire pit, cool box, food canister, climbing rope, carabiner, compass, bivvy bag,
        hiking socks, snowshoes, paddle, camp pillow, fleece, sun hat, daypack, camp kettle, fishing rod, whistle, hiking trousers, lantern, pack cover"""),
    "electronics": _list("""headphones, speaker, webcam, monitor, keyboard, mouse, charger, power bank, cable, adapter, router, portable SSD, memory card, e-reader,
        action camera, smart plug, radio, microphone, ring light, projector, dock, hub, tablet, smart watch, thermostat, doorbell, earbuds, soundbar, printer,
        graphics tablet, battery pack, air quality monitor, desk lamp, alarm clock, turntable, game controller, drone, laptop stand, baby monitor, antenna"""),
    "toys": _list("""building blocks, doll, plush otter, plush bear, marble run, board game, card game, jigsaw puzzle, kite, balance bike, train set, toy car, spinning top,
        stacking rings, rattle, puppet, doll's house, play tent, bubble wand, yo-yo, rocking horse, shape sorter, dominoes, chess set, modelling clay,
        robot kit, skipping rope, toy kitchen, pull-along duck, magnetic tiles, scooter, teddy bear, memory game, wooden blocks, plush rabbit, dice game, music box"""),
    "stationery": _list("""notebook, fountain pen, pencils, ink, sticky notes, planner, envelopes, paper pad, ruler, eraser, sharpener, stapler, wax seal set, letter paper,
        ballpoint pen, highlighter, pencil case, desk organiser, calendar, sketchbook, watercolour set, brush pen, washi tape, file folder, clipboard, index cards,
        postcards, glue stick, scissors, paper clips, bookmark, blotter, diary, gel pens, drawing board, chalk, wrapping paper, address book"""),
}

PARTS = {
    "garden": _list("spout, rose, handle, blade, tip, valve, spring, tread, rim, nozzle, wheel, liner, stem guard"),
    "kitchen": _list("lid, handle, rim, base, knob, spout, insert, sieve, edge, liner, ring, blade, rest"),
    "outdoor": _list("zip, strap, hip belt, hood, pole, buckle, pocket, sole, lace, net, cord, seam, stake"),
    "electronics": _list("cable, stand, case, screen, button, grille, foot, clamp, dial, port, sleeve, key, hinge"),
    "toys": _list("wheel, box, ramp, string, tail, eye, button, board, bell, hook, seat, mane, ribbon"),
    "stationery": _list("cover, nib, cap, clip, ribbon, barrel, spine, flap, pocket, corner, lid, tip, page"),
}

# What a sentence says that gives a department away, without stating any of the fields.
CUES = {
    "garden": _list("""roses, fruit trees, the compost heap, clay soil, the flower bed, hedges, beans and peas, tomatoes, the lawn, seedlings, weeds, raspberries, the greenhouse,
        the vegetable patch, slugs, the root ball, mulch, autumn leaves, the border, a balcony full of herbs"""),
    "kitchen": _list("""pasta, soup, eggs, bread dough, roasts, pancakes, curry paste, coffee, sauces, the dishwasher, vegetables, the oven, an induction hob, steaks,
        a pot of tea, sourdough, leftovers, salad, onions, Sunday breakfast"""),
    "outdoor": _list("""canoe trips, a week in the mountains, the campfire, wet trails, winter hikes, the summit, nights in the wild, long climbs, cold mornings at camp,
        the riverbank, stormy ridges, hut tours, bike touring, snow, muddy paths, bears, a day of rain, desert walks, the trail, a bivouac"""),
    "electronics": _list("""video calls, the home office, music on the train, podcasts, games, streaming, a flat battery, the laptop, two phones, Bluetooth, the cloud, USB-C,
        the network, photos, a second screen, firmware updates, Wi-Fi, recordings, the living room, smart homes"""),
    "toys": _list("""children from three, rainy afternoons, the whole family, birthdays, small hands, toddlers, the nursery, brothers and sisters, two to four players, bedtime,
        pretend play, kindergarten, grandchildren, a long car ride, curious children, babies, the playground, game night, small builders, a first birthday"""),
    "stationery": _list("""letters, sketches, the desk, meeting notes, journals, school, exams, calligraphy, invitations, ink that never dries, lists, drawings, the office,
        handwriting, thank-you notes, margins, bullet journals, essays, the studio, appointments"""),
}

MATERIALS = _list("""oak, ash, beech, birch, pine, cedar, larch, walnut, maple, olive wood, bamboo, cork, rattan, willow, teak, acacia, plywood, steel, stainless steel, carbon steel,
    cast iron, iron, copper, brass, bronze, aluminium, titanium, zinc, pewter, silver, tin, glass, borosilicate glass, porcelain, stoneware, earthenware, terracotta, ceramic, enamel,
    marble, granite, slate, soapstone, concrete, leather, suede, vegan leather, cotton, organic cotton, linen, hemp, jute, sisal, wool, merino, merino wool, cashmere, felt, silk, denim, canvas, waxed canvas,
    nylon, ripstop nylon, polyester, recycled polyester, fleece fabric, down, microfibre, rubber, natural rubber, silicone, latex, neoprene, plastic, recycled plastic, acrylic, resin, polycarbonate,
    polypropylene, polyethylene, PVC, carbon fibre, cardboard, paper, cotton paper, beeswax, soy wax, wicker, wood, hardwood, solid wood, tarpaulin""")

COLORS = _list("""black, white, red, green, blue, yellow, orange, purple, pink, brown, grey, beige, navy, turquoise, teal, olive green, burgundy, cream, ivory, charcoal, mint, lavender, coral, mustard,
    rust, sand, khaki, crimson, indigo, lilac, amber, emerald, anthracite, bottle-green, blue-black, dark red, dark blue, dark green, light blue, light grey, pale pink, bright yellow, sky blue,
    forest green, matt black, pearl white, warm white, midnight blue, brick red, lime green, off-white, rose, slate grey, moss green""")

ADJECTIVES = _list("""folding, compact, classic, sturdy, light, heavy, small, large, round, square, long, narrow, wide, deep, flat, handmade, hand-forged, professional, portable, cordless, wireless, foldable,
    adjustable, reusable, refillable, waterproof, insulated, polished, brushed, woven, printed, painted, smooth, soft, quiet, fast, slim, mini, modern, simple, elegant, rugged, stackable, vintage""")

TAILS = _list("""round, square, large, small, medium, recycled, hand forged, fine, extra long, men, women, for left-handers, second generation, natural, dotted, lined, stackable, wall format,
    starter set, family size, travel size, matt, glossy, unscented, over-ear, slim fit, classic cut, double-walled, cordless, A4, A5, 2 TB, 65 W, 4K, 1080p""")

THINGS = _list("""bag, box, guide, spare, brush, sleeve, cover, pouch, card, hook, ring, pair of screws, leaflet, key, cap, cloth, pad, band, tin, belt, remote, charger, tray, clip, handbook, sticker, cushion""")

WORDS = _list("""winter, morning, hand, water, door, window, summer, workshop, village, family, weight, shoulder, river, evening, neighbour, shelf, pocket, season, corner, light, evening, wind, coat, stone, table,
    market, island, grandmother, craft, pattern, edge, finger, leaf, mountain, garden, cupboard, friend, teacher, travel, sleep, idea, machine, floor, roof, coast, forest, shadow, silence, colour, shape, sound, dust,
    sugar, salt, oil, bread, iron, repair, promise, tool, thread, surface, balance, movement, reason, question, answer, lesson, story, paint, letter, winter, wheel, bridge, harbour, train, station, field, horse""")

VERBS = _list("""holds, carries, keeps, opens, closes, turns, folds, slides, lifts, protects, covers, supports, stands, rests, hangs, dries, cools, warms, fits, follows, guides, saves, shows, hides, stops, moves, needs,
    grips, cleans, lasts, reaches, rolls, clicks, locks, glides, bends, stretches, breathes""")

MODIFIERS = _list("""easy, quiet, careful, honest, patient, dry, wet, warm, cool, clear, gentle, firm, even, quick, slow, plain, bold, fresh, strong, rare, common, ready, steady, open, loose, tight, sharp, clean, dark, bright""")

PROBLEMS = {
    "delivery": _list("""the parcel has not arrived, the package is two weeks late, the tracking has not moved for days, the courier left it at the wrong house, the box arrived empty, the delivery was sent to my old address,
        only half of the order was delivered, the parcel is stuck in customs, nobody rang when it was delivered, the shipment was returned to you, the courier lost the package, the delivery date was moved again"""),
    "defect": _list("""the lid is cracked, the handle came off, it does not switch on, the screen flickers, the zip is broken, the seam has torn, it leaks at the bottom, one wheel is missing, the battery does not charge, the blade is chipped,
        the button is stuck, it makes a loud noise, the glass is scratched, the hinge is bent, the cable is frayed, it stopped working after a week, the paint is peeling, a part is missing"""),
    "billing": _list("""I was charged twice, the invoice shows the wrong amount, the voucher was not applied, my refund has not been paid, the price on the bill is too high, my card was debited without an order, the tax is missing on the invoice,
        the discount was not deducted, you took the money two times, the payment was declined but the money is gone, I paid for express shipping but was billed again, the bill has the wrong company name"""),
    "account": _list("""I cannot log in, my password is not accepted, the reset link does not arrive, my account is locked, I want to change my e-mail address, my profile shows another name, the confirmation code never comes, I want to delete my account,
        my newsletter settings are not saved, I forgot my user name, somebody else uses my login, my saved address is gone"""),
    "question": _list("""does it fit a left hand, is it dishwasher-safe, when will it be back in stock, can I get it in another size, how long is the guarantee, which batteries does it need, is there a manual in English, can it stay outside in winter,
        do you ship to islands, is the colour as in the picture, can I order spare parts, does it work with hard water"""),
}

REQUESTS = {
    "delivery": _list("replacement, refund, new delivery date, tracking number, callback, cancellation"),
    "defect": _list("replacement, refund, repair, exchange, spare part, return label"),
    "billing": _list("refund, corrected invoice, credit note, callback, cancellation"),
    "account": _list("callback, password reset, confirmation, account deletion"),
    "question": _list("callback, brochure, quote, sample, manual"),
}

_ONSETS = "b br c ch cl d dr f fl g gl gr h j k kl l m n p pl qu r s sh sk sl sp st t th tr v w y z".split()
_VOWELS = "a e i o u ae ai ea ei io oa ou y".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "t", "k", "m", "nd", "rn", "lt", "x", "ck", "ss", "ld", "v", "d", "p"]


def held_out(name):
    """Whether a made-up name or a long number belongs to the evaluation alone: one in eight, by its hash."""
    return hashlib.sha256(name.encode()).digest()[0] % 8 == 0


def _of_split(rng, make, evaluation):
    while True:
        value = make()
        if held_out(value) == evaluation:
            return value


def invented(rng, evaluation, syllables=(2, 3)):
    """A capitalised word that means nothing."""

    def make():
        count = rng.randint(*syllables)
        return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count)).capitalize()

    return _of_split(rng, make, evaluation)


def order_number(rng, evaluation):
    """An order number in one of a few formats."""

    def make():
        digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(5, 8)))
        letters = "".join(rng.choice("ABCDEFGHKLMNPRSTVWXZ") for _ in range(2))
        return rng.choice([digits, f"{letters}-{digits}", f"{digits[:4]}-{digits[4:]}{letters[0]}", f"{letters[0]}{digits}", f"{letters}{digits[:3]}-{digits[3:]}"])

    return _of_split(rng, make, evaluation)
