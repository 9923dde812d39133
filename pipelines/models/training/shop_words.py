"""Words and sentences of shop pages: what the templates of `shop.py` are filled with."""

import words


def _list(text, mark=","):
    return [item.strip() for item in " ".join(text.split()).split(mark) if item.strip()]


# A product's name is a head alone, or a head behind one or two of these: some tens of thousands of names.
HEADS = _list("""chair, table, stool, bench, shelf, cabinet, rack, box, basket, tray, bowl, jug, jar, bottle, flask, cup, mug, pan, pot, knife, spoon, fork, whisk, mill,
    board, cloth, towel, apron, mat, rug, blanket, quilt, pillow, cushion, curtain, sheet, lamp, lantern, candle, torch, bulb, clock, mirror, frame, vase, hook, hanger,
    bag, pouch, case, wallet, purse, belt, strap, scarf, glove, hat, cap, jacket, vest, shirt, sock, shoe, slipper, boot, sandal, brush, comb, razor, soap, balm, cream,
    oil, tea, coffee, honey, jam, rice, spice, chocolate, drill, saw, hammer, wrench, pliers, screwdriver, clamp, chisel, file, tape, rope, chain, lock, hinge, bracket,
    screw, nail, valve, pump, filter, hose, tap, fan, heater, kettle, toaster, blender, scale, timer, thermometer, radio, speaker, microphone, camera, tripod, lens,
    screen, cable, adapter, charger, battery, router, printer, scanner, keyboard, mouse, tablet, drive, stylus, pen, pencil, marker, ink, eraser, ruler, notebook,
    folder, binder, envelope, stamp, sticker, calendar, easel, canvas, paint, puzzle, game, doll, kite, ball, car, train, truck, robot, block, drum, whistle, mask,
    leash, collar, bowl stand, feeder, cage, perch, tent, tarp, sleeping bag, stove, cooler, hammock, compass, map, paddle, pump, helmet, bell, light, saddle, pedal,
    pannier, seed, bulb, pot, planter, trellis, spade, fork, rake, hoe, shears, glove, sprayer, net, stake, tub, bin, bucket, broom, mop, sponge, ladder, trolley, cart,
    humidifier, purifier, barometer, sander, polish, wax, glue, string, ribbon, yarn, needle, thread, button, zip, thimble, scissors, cutter, press, mould, rack, grater""")
MODIFIERS = _list("""garden, kitchen, desk, bath, beach, travel, camping, office, wall, floor, ceiling, window, door, bed, sofa, baby, kids, dog, cat, bird, fish, horse, bike, car,
    boat, train, school, party, picnic, winter, summer, rain, snow, sun, night, day, tea, coffee, wine, beer, water, milk, bread, cake, cheese, fruit, herb, salad, soup,
    egg, rice, pasta, pizza, spice, salt, sugar, butter, honey, corner, pocket, hand, foot, head, neck, knee, back, hair, face, nail, shoe, shirt, coat, hat, laundry,
    storage, tool, paint, paper, photo, letter, book, music, guitar, piano, card, board, chess, puzzle, sewing, knitting, craft, drawing, writing, reading, bedside,
    hallway, balcony, greenhouse, workshop, garage, attic, cordless, rechargeable, electric, digital, manual, folding, adjustable, stackable, portable, compact, mini,
    giant, classic, vintage, modern, rustic, handmade, woven, knitted, quilted, padded, insulated, heated, magnetic, hanging, rolling, swivel, rocking, double, single,
    two-way, three-tier, heavy-duty, ultralight, refillable, reusable, washable, foldaway, collapsible, inflatable, telescopic, retractable, non-stick, anti-slip""")
HARDWARE = _list("""handle, knob, lid, foot, hinge, strap, buckle, zip, lining, clasp, hook, ring, spout, base, rim, button, cap, cover, sleeve, grip, wheel, castor, leg, arm,
    frame, drawer, shelf, back, seat, edge, trim, cord, cable, plug, socket, switch, dial, valve, gasket, seal, spring, screw, bracket, nib, clip, spine, tip, blade,
    sole, lace, insole, pocket, hood, cuff, collar, hem, seam, waistband, pole, peg, stake, burner, grate, nozzle, rose, brush, filter, tank, jug, sieve, insert""")
ACCESSORIES = _list("""pouch, bag, storage box, cleaning brush, spare blade, spare seal, user guide, charging cable, wall bracket, carry case, dust cover, cloth, sachet, sample,
    gift box, set of screws, measuring spoon, stand, sleeve, tin, hanging loop, label, booklet, repair patch, travel lock, strap, funnel, key, mains adapter, tray""")
SURFACES = _list("""walls, floors, tiles, fabrics, worktops, hobs, windows, furniture, boats, fences, doors, decks, tabletops, panels, boards, pipes, ceilings, carpets, pots, shelves""")
PLACES = _list("""the hallway, the kitchen, a small flat, the office, the garden, the balcony, the boot of a car, the workshop, the shed, the bathroom, a rucksack, the bedside table, a
    caravan, the nursery, the classroom, the beach, the cellar, the pantry, a drawer, the studio, the greenhouse, the terrace, the laundry room, a hand bag, the campsite""")
USES = _list("""weekend trips, daily use, baking, grilling, repairs, small jobs, long walks, rainy days, reading in bed, working late, cold mornings, moving house, storing winter
    clothes, potting up seedlings, slicing tomatoes, drying herbs, brewing tea, hanging pictures, sorting papers, packing lunch, cleaning windows, feeding birds, walking the
    dog, cycling to work, yoga, swimming, sewing, painting, model making, marking exams, keeping accounts, board games, birthday parties, gift giving, fishing, sailing""")
PEOPLE = _list("""beginners, children, gardeners, cooks, students, teachers, cyclists, campers, dog owners, left-handers, bakers, painters, musicians, parents, commuters, joiners,
    collectors, runners, sailors, seniors, readers, anglers, nurses, photographers, knitters, hikers, guests, craftspeople, beekeepers, climbers""")
WHOLE = _list("""thing, whole thing, piece, body, shell, outside, outer, case, housing, construction, frame and top, surface, fabric, face""")
ADJECTIVES = _list("""sturdy, light, soft, smooth, quiet, slim, flat, wide, deep, tall, short, round, square, simple, plain, bright, clear, warm, cool, dry, firm, gentle, sharp, strong,
    tough, neat, clean, fresh, handy, clever, reliable, precise, stable, flexible, roomy, elegant, timeless, comfortable, breathable, durable, weatherproof, dense, thick, thin""")
FINISHES = _list("""oiled, varnished, polished, brushed, lacquered, untreated, glazed, enamelled, powder-coated, anodised, hand-rubbed, sanded, waxed, sealed, stitched, hemmed, glued,
    welded, riveted, dovetailed, cast, forged, turned, moulded, pressed, woven, knitted, felted, quilted, laminated, embossed, engraved, printed, dyed""")
THINGS = _list("""kettle, saucepan, phone, laptop, bottle, book, letter, coat, shoe, key, parcel, plate, glass, spoon, apple, potato, onion, loaf, cake, flower, branch, leaf, stone,
    tile, pipe, wall, shelf, drawer, door, window, car, bicycle, boat, tent, rucksack, child, dog, cat, bird, guest, neighbour, visitor, hand, finger, shoulder, wrist, foot,
    water, rain, steam, dust, grease, crumbs, sand, mud, soil, heat, frost, wind, noise, light, power, signal, price, bill, weekend, morning, evening, winter, summer, holiday,
    page, line, word, picture, sound, song, story, rule, turn, corner, edge, gap, hole, crack, knot, fold, crease, stain, scratch, smell, taste, flavour, colour, shape""")
VERBS = _list("""keeps, holds, protects, covers, lifts, catches, fits, follows, stores, dries, cleans, warms, cools, cuts, opens, closes, moves, turns, supports, carries, guides,
    softens, reaches, fills, empties, locks, hides, shows, saves, stops, leaves, needs, takes, absorbs, drains, spreads, lights, charges, records, measures, prints, folds""")
PLURALS = _list("""candles, glasses, spoons, pegs, hooks, cards, pencils, markers, brushes, tiles, towels, napkins, coasters, plugs, clips, bags, sachets, filters, bulbs, batteries, pots,
    labels, envelopes, stickers, screws, hangers, jars, plates, mugs, bowls, forks, blocks, marbles, figures, cubes, pads, rolls, sheets of sandpaper, balloons, magnets""")
# What is counted and is no piece of a pack.
COUNTED = _list("""pages, sheets, hours, minutes, years, days, weeks, players, people, settings, speeds, holes, stitches, ports, keys, compartments, pockets, stars, languages, recipes,
    steps, levels, drawers, shelves, LEDs, lumens, watts, volts, programmes, colours, layers, seconds, washes, cycles, lines, questions, songs, threads, teeth, spokes, ribs, rows""")
UNITS = _list("""W, kW, V, A, mAh, Wh, kWh, lumens, lux, hPa, bar, psi, Hz, kHz, MHz, GHz, dB, dpi, ppm, rpm, GB, TB, MB/s, Mbit/s, %, °C, degrees, gsm, g/m², denier, micron, grit,
    fps, megapixels, K, calories, kcal, Nm, hours, minutes, years, km/h, m², micrometres, TOG, months, seconds, pH""")
ORIGINS = _list("""Portugal, Sweden, Wales, Finland, Japan, Austria, Estonia, Poland, Spain, Norway, Denmark, Slovenia, the Black Forest, Scotland, Kerala, Bohemia, Tuscany, Lapland""")
TAILS = _list("""large, small, medium, size M, size L, size XL, round, square, oval, unscented, natural, recycled, organic, foldable, with lid, wall-mounted, left-handed, long sleeve, kids,
    men, women, unisex, A4, A5, DIN A6, USB-C, 2 TB, 32 GB, 65 W, 4K, 1080p, IP67, second edition, refill, starter set, gift edition, lined, dotted, squared, extra soft, fine, coarse,
    grit 120, 2000 mAh, 800 lumens, dimmable, rechargeable, 5 speeds, pair, twin pack, double-walled, hand-finished, slim, tall, heavy duty, medium roast, loose leaf, 300 gsm""")
EXTRA_MATERIALS = _list("""solid oak, solid beech, spruce, cherry wood, ebony, mango wood, rubberwood, poplar, MDF, chipboard, mild steel, spring steel, galvanised steel, tool steel, chrome,
    wrought iron, cast aluminium, sandstone, limestone, quartz, crystal, soda-lime glass, tempered glass, bone china, clay, faience, cowhide, sheepskin, nubuck, full-grain leather,
    lambswool, alpaca, mohair, flannel, velvet, corduroy, muslin, terry, percale, viscose, modal, lyocell, polyamide, elastane, ABS, TPU, EVA foam, foam, memory foam, polystyrene,
    melamine, fibreglass, epoxy, seagrass, water hyacinth, raffia, straw, coir, kapok, horsehair, bristle, kraft paper, card, parchment, oilcloth, tulle, mesh, Tritan, nickel silver""")
MATERIALS = words.MATERIALS + EXTRA_MATERIALS
COLORS = words.COLORS + _list("""scarlet, maroon, peach, apricot, ochre, taupe, plum, violet, magenta, cyan, aqua, petrol, sage, pistachio, chestnut, copper-red, silver grey, dove grey,
    graphite, jet black, snow white, ecru, oatmeal, fuchsia, blush, denim blue, royal blue, racing green, sunflower yellow, terracotta red, wine red, cobalt blue, ash grey""")

# Sentences that state a fact of the thing itself. {M} material, {C} colour, {S} size, {W} weight, {P} pieces, {B} brand.
TRUE = {
    "material": _list("""Made of {M}|Made from {M}|Made from {adj} {M}|{M}, {finish}|{M}, {finish} and {finish}|Material: {M}|Body of {M}|Solid {M}|{M} throughout|100 % {M}|Pure {M}|In {M}|
        Turned from one block of {M}|Cut from a single piece of {M}|Knitted from {M}|Woven from {adj} {M}|Sewn from {M}|Cast in {M}|Pressed from {M}|Folded from {M}|Blown from {M}|Moulded in {M}|
        The {whole} is {M}|The {whole} is made of {adj} {M}|{finish} {M}|{M} with {adj} {parts}|{adj} {M} that {verb} the {thing}|{M} for {people}|A {adj} {head} in {M}|{adj} {head} of {M}|{M} {head} for {use}|
        {M}, so it {verb} the {thing}|{M}: {adj}, {adj} and easy to clean|Our {head} is {finish} from {M}|It is {finish} from {M} and never from {m}|{M} outside, {adj} inside|
        {M} and nothing else|{finish} by hand in {M}|{M} {head} with a {adj} {part}|A {head} of {M} for {place}|{M} body with {m} {parts}|{M} shell, {m} lining|{M} housing with a {part} of {m}|
        {M}, with a {part} of {m}|{adj} {M}, {adj} to the touch|Hand-{finish} from {M}|Crafted in {M} by {people}|{M} construction|We make it from {M}|Thick {M} that {verb} well|{M} upper|{M} fabric, {finish}|
        {M}, {finish}, from {origin}|{M} from {origin}|Built of {M} and {finish}|{M} of good quality|{M}, {S}|{M}, {W}|{M} in {C}|Of {M}|{M} {other}|{M} {other} for {use}|{M} {other} with {adj} {parts}|{M} {other} with a {adj} {part} for {thing}|{adj} {M} {other} that {verb} the {thing}|{M} {other} for {people}|{other} of {adj} {M}|{finish} {M} {other}|{M} {other}, {finish}|{M} {other} from {origin}|The {head} is of {M}""", "|"),
    "color": _list("""Colour: {C}|Color: {C}|In {C}|Comes in {C}|{C}, {finish}|{C} finish|Painted {C}|Dyed {C}|Supplied in {C}|The {whole} is {C}|A {C} {head} for {place}|{C} {head} with {adj} {parts}|
        Powder-coated in {C}|{C} with a {adj} finish|Available in {C}|Shade: {C}|This one is {C}|{C} all over|Matt {C}|{C} outside, {c} inside|{C} with {c} {parts}|Glazed in {C}|{C} {m}|{C}, as pictured""", "|"),
    "size": _list("""Size: {S}|Measures {S}|It measures {S}|Dimensions: {S}|{S} long|{S} wide|{S} high|{S} tall|{S} across|{S} in diameter|Diameter {S}|Length {S}|Height {S}|About {S}|{S}|{S} in size|{S} overall|
        At {S} it fits {place}|{S}, so it fits {place}|Just {S}|Outer size {S}|Approx. {S}|{S} when open|{S} and {adj}|{S}, {adj} enough for {use}|{S}, with {adj} {parts}|The {head} is {S}|{S} from end to end|{S} each|{S} square|{S} round|{adj} {other} of {S}|A {S} {other} for {place}|Each is {S}|{S}, {C}|{S} by the {thing}""", "|"),
    "volume": _list("""Capacity: {S}|Capacity {S}|Holds {S}|It holds {S}|Volume {S}|{S} capacity|{S}|{S} of room|Contents: {S}|Room for {S}|Content {S}|{S}, enough for {use}|Takes {S}|{S} in the bottle|Fills to {S}|{S} each|{S} bottle|A bottle of {S}|{S} of {adj} {thing}|Tank of {S}|{S} inside""", "|"),
    "weight": _list("""Weight: {W}|Weighs {W}|It weighs {W}|Weighs only {W}|Just {W}|{W}|At {W} it is easy to carry|{W} in all|{W} without the {accessory}|Net weight {W}|Total weight {W}|Own weight {W}|About {W}|{W} light|
        With {W} it is {adj} enough for {people}|At {W} it stays where it is|Heavy at {W}|Weight {W}, including {parts}|{W}, {adj} and {adj}|Weighs {W} with the {part}|Only {W} on the scales|The {head} weighs {W}|{W} each|{W} and {S}|{S} and {W}|{S}, {W}|{W}, {S}|At {W} and {S} it fits {place}|{S}; {W}|{S} long and {W} light|{W} for the {adj} one""", "|"),
    "pieces": _list("""Set of {P}|Pack of {P}|Box of {P}|{P} pieces|{P} pieces in a {accessory}|Contains {P} {plural}|{P} {plural} in a box|{P} {plural} per pack|Pack of {P} {plural}|Sold as a set of {P}|{P} pcs|
        A set of {P} {plural}|Comes as a pack of {P}|Quantity: {P}|Contents: {P} pieces|{P} in a pack|Bag of {P}|In a box of {P}|{P}-piece set|{P} per box|Includes {P} {plural}|Supplied in packs of {P}""", "|"),
    "brand": _list("""By {B}|Made by {B}|Designed by {B}|From {B}|Brand: {B}|Manufacturer: {B}|A classic by {B}|{B} makes it in {origin}|{B} has made it since {year}|Produced by {B} in {origin}|From the workshop of {B}|
        By {B} of {origin}|Built by {B}|A design by {B}|{B} guarantees it for {int} years|Created by {B} for {people}""", "|"),
}
# The same words in another role: nothing here states a fact of the thing.
FALSE = {
    "material": _list("""{m} {parts}|{m} {part}|{adj} {m} {parts}|With a {m} {part}|{part} of {m}|{parts} of {adj} {m}|The {part} is {m}|The {parts} are {m}|A {m} {accessory} is included|Comes with a {m} {accessory}|In a {m} {accessory}|
        No {m}|No {m}, no {m}|Without {m}|Not {m}|Free from {m}|Contains no {m}|For {m} and {m}|For {surfaces} of {m}|Works on {m}, {m} and {m}|Cuts {m} as well as {m}|Not for {m}|Safe on {m}|Also for {m} {surfaces}|
        It looks like {m} and is not|As {adj} as {m}|Unlike {m}, it {verb} the {thing}|It replaces {m} {surfaces}|Does not scratch {m}|Sticks to {m} and {m}|Fits into {m} {surfaces}|{m}-free|Does the work of {m}|
        Drills {m}, {m} and {m}|{m} {parts} and {adj} {parts}|{parts} with {m}|Removes {thing} from {m}|Goes well with {m}|{adj} {m} {parts} with {adj} {parts}|The {part} has a core of {m}|Wrapped in {m}|
        Store it in {m}|Ships in {m} instead of {m}|{m} {part} with a {adj} {part}|Two {parts} of {m}|{m} {part}, {m} {parts}|Filled with {m}|The filling is {m}|{m} on the {part}|Do not use on {m}""", "|"),
    "color": _list("""{c} {parts}|With a {c} {part}|A {c} {accessory} is included|{part} in {c}|The {part} is {c}|The {part} turns {c}|The light is {c}, then {c}|A {c} line shows the {thing}|Not in {c}|{c} when charging, {c} when full|
        For {c} and {c} {things}|It turns {c} with age|Removes {c} stains|With {c} {parts} and {adj} {parts}|Shows {c} when it is empty|In a {c} {accessory}|Four {adj} colours|Assorted colours|The {thing} stays {c}|{c} lettering""", "|"),
    "size": _list("""Waterproof to {len}|Waterproof to a depth of {len}|{len} cable|With a {len} cable|Cable length {len}|Up to {len} thick|{len} thick|Cuts up to {len}|For {things} up to {len}|For {things} of {len}|{part} {len}|The {part} is {len} long|
        Range {len}|Range up to {len}|Reaches {len}|Sees {len} ahead|Works from {len} away|Leave {len} free on each side|Packed {dims}|Folds to {dims}|Folded {dims}|{accessory} of {dims}|Mesh {len}|Survives a fall from {len}|
        Fits {things} from {len} to {len}|For holes of {len}|Grows to {len}|Plant {len} apart|Sow {len} deep|{len} of {thread} on the {part}|Adjusts from {len} to {len}|{part} of {len}|Strap {len}|Not for {things} above {len}|
        Dilute {vol} in {vol} of water|One {thing} makes {vol}|Uses {vol} an hour|Pumps {vol} a minute|{vol} of {thing} per day|Comes with {vol} of {thing}|Add {vol} of water|Saves {vol} of water a day|For rooms up to {int} m²|
        {len} {parts}|A {part} {len} wide|The {thing} is {len} away|Step height {len}|Seams {len} wide|Accurate to {len}""", "|"),
    "weight": _list("""Carries {w}|Carries up to {w}|Holds up to {w}|Holds {w}|Load up to {w}|Maximum load {w}|Takes {w}|For {people} up to {w}|Tested with {w}|Supports {w}|For {things} of {w}|For up to {w} of {thing}|{w} of filling|
        {w} of {thing}|Filled with {w} of {m}|The {part} weighs {w}|The {accessory} weighs {w}|{int}0 g paper|{int}0 g/m²|{int}0 gsm|{m} of {int}0 g/m²|Weighs {things} up to {w}|Accurate to {w}|Lifts {w}|Pulls {w}|
        Breaking load {w}|Use {w} per litre|{w} a day is enough|Saves {w} of {thing}|Not for more than {w}|Maximum user weight {w}|Presses with {w}|For dogs up to {w}""", "|"),
    "pieces": _list("""{int} {counted}|{int} {counted} each|{int} {counted} and {int} {counted}|{big} {counted}|With {int} {counted}|From {int} years|For {int} to {int} players|For {int} people|Serves {int}|{int} {parts}|With {int} {parts}|
        {int} years guarantee|Ready in {int} minutes|Lasts {int} hours|Runs {int} hours on one charge|{int} of the {things} are {adj}|Up to {int} {things}|Room for {int} {things}|{int} {counted} per {thing}|Needs {int} AA batteries|
        About {int} {things}|After {int} {counted}|Tested {big} times|Over {big} {things} in {int} {counted}|{int} {accessory}s included|Age {int}+|{int} by {int} {things}|Two {accessory}s in the box|{word} {plural}|{word} {counted}|{word} {parts} and {word} {things}|{word} pieces|{word} of them {verb} the {thing}|{int} x zoom|{int} + {int} {counted}|{big} {counted} a {thing}|In {int} {counted}""", "|"),
    "brand": _list("""Fits {name} and {name} machines|Compatible with {name}|Works with {name} and {name}|For {name} {int}|Model {name}|Model {name} {int}|Certified by {name}|Tested by {name}|Named after {name}|Works with the {name} app|
        {name} is a valley in {origin}|Replaces {name} {int}|Not for {name}|With {name} {parts}|The pattern is called {name}|As seen in {name}|Matches the {name} series|Refills by {name} fit|Not made by {name}""", "|"),
}
ODD = _list("""{odd}|{odd}, {odd}|Up to {odd}|{odd} and {odd}|From {odd} to {odd}|At {odd} it {verb} the {thing}|{adj} {part}, {odd}|Runs at {odd}|{odd} at {odd}|Rated at {odd}|Measures from {odd} to {odd}|Keeps {odd}|
    Output {odd}|{odd} in {odd}|Wash at {int}0 degrees|Heats to {odd}|Power: {odd}|The {part} gives {odd}|Resists {odd}|Loses {odd} in {odd}""", "|")
# Sentences about the thing that state none of the fields.
PLAIN = _list("""For {use}|Good for {use}|For {use} and {use}|Made for {people}|Made for {use}|For {people} who like {use}|Handy for {use}|{adj} and {adj}|{adj}, {adj} and {adj}|{adj} {parts}, {adj} {part}|The {part} {verb} the {thing}|
    The {part} {verb} the {thing}, so the {thing} stays {adj}|It {verb} the {thing} and {verb} the {thing}|{verb} the {thing} without {thing}|No {thing}, no {thing}|No tools needed|Ready to use|Dishwasher-safe|Machine-washable|Not waterproof|
    Not for the dishwasher|Wipe clean with a damp cloth|Hand wash only|Assembly takes ten minutes|Screws are included|Batteries not included|A {accessory} is included|Comes with a {accessory}|Comes with a {accessory} and a {accessory}|
    {accessory} included|The {accessory} is sold separately|Fits {place}|Looks good in {place}|At home in {place}|Made in {origin}|{finish} by hand in {origin}|Designed in {origin}, made in {origin}|Spare {parts} are available|
    The {part} can be replaced|The {parts} come off for cleaning|If the {thing} is {adj}, the {part} {verb} it|Because the {part} is {adj}, it {verb} the {thing}|When the {thing} {verb} the {thing}, turn the {part}|You can {bare} the {part} with one hand|
    {bare} it, {bare} it, and {bare} it again|Just {bare} the {part} and {bare} the {thing}|Please {bare} the {part} before you {bare} the {thing}|A {adj} {thing} for every {thing}|What {people} ask for: a {adj} {part}|
    A gift for {people}|Our {people} tested it for a year|It does one thing and does it well|Every {thing} is different|Folds flat|Stands on its own|Hangs on any {thing}|Stacks neatly|Opens with one hand|Locks in place|
    Rolls quietly over {surfaces}|Easy on the {thing}|Kind to {surfaces}|Does not slip|Does not drip|Does not rust|Will not fade|Not a toy|Keep away from {thing}|Read the {accessory} first|The {part} has a {adj} {part}|
    {part} and {part} in one|{part}, {part} and {part} included|{parts} that {people} trust|Built to be repaired|Packed without plastic film|Ships flat|The {part} works with gloves on|Turn the {part} until it clicks|
    The {thing} {verb} the {thing} while the {part} {verb}|Thanks to the {adj} {part}, the {thing} {verb} less|Instead of a {thing} it has a {part}|Small enough for {place}, {adj} enough for {use}|From {place} to {place}|
    Its {adj} {part} {verb} every {thing}|Nothing {verb} {thing} better|{use} becomes a pleasure|As {adj} on the last day as on the first|Less {thing}, more {thing}|Three things make it {adj}: the {part}, the {part} and the {part}|
    {nonsense}|{nonsense}|{nonsense}|{nonsense}""", "|")
NUMERALS = _list("two, three, four, five, six, seven, eight, nine, ten, twelve, fifteen, twenty, twenty-four, thirty, fifty, sixty, a hundred, a dozen, a pair of, several, many")
BARE = _list("""open, close, fold, wash, rinse, dry, lift, turn, pull, push, press, hang, store, fill, empty, clip, screw, wipe, oil, charge, replace, roll, lock, tie, cut, brush, shake, tilt, hold""")
