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

# Korean: (noun, its department); words are short because every syllable is a token of its own.
KOREAN_NOUNS = {
    "garden": _list("물뿌리개, 전지가위, 꽃삽, 화분, 배양토, 호스, 갈퀴, 모종, 씨앗, 텃밭 상자, 원예 장갑, 지지대"),
    "kitchen": _list("프라이팬, 도마, 냄비, 식칼, 반찬통, 머그컵, 주전자, 커피 그라인더, 국자, 접시, 수저, 밀폐 용기"),
    "outdoor": _list("텐트, 침낭, 배낭, 등산화, 해먹, 화로대, 캠핑 의자, 랜턴, 방수 가방, 등산 스틱, 버너, 돗자리"),
    "electronics": _list("헤드폰, 스피커, 무선 마우스, 키보드, 충전기, 보조 배터리, 모니터, 공유기, 웹캠, 빔프로젝터, 이어폰, 가습기"),
    "toys": _list("나무 블록, 봉제 인형, 보드게임, 퍼즐, 연, 장난감 기차, 팽이, 인형의 집, 밸런스 바이크, 딸랑이, 공룡 인형, 카드 게임"),
    "stationery": _list("만년필, 공책, 연필, 다이어리, 편지지, 마스킹테이프, 메모지, 볼펜, 필통, 스케치북, 잉크, 지우개"),
}
KOREAN_CUES = {
    "garden": _list("장미를 가꾸는 분께 좋습니다, 베란다 텃밭에 딱 맞아요, 흙이 잘 빠집니다, 물을 고르게 줍니다, 토마토와 상추를 키워 보세요"),
    "kitchen": _list("국과 찌개를 끓이기 좋습니다, 식기세척기에 넣어도 됩니다, 아침 커피에 어울려요, 인덕션에서도 씁니다, 요리가 쉬워집니다"),
    "outdoor": _list("비가 와도 젖지 않습니다, 겨울 산행에 든든합니다, 캠핑장에서 쓰기 편해요, 접으면 작아집니다, 긴 산길에도 가볍습니다"),
    "electronics": _list("블루투스로 연결합니다, 한 번 충전하면 오래 갑니다, 소리가 또렷해요, 노트북에 바로 꽂으세요, 화면이 선명합니다"),
    "toys": _list("아이들이 좋아합니다, 세 살부터 가지고 놀 수 있어요, 온 가족이 함께 즐깁니다, 생일 선물로 좋아요, 모서리가 둥글어 안전합니다"),
    "stationery": _list("글씨가 번지지 않습니다, 책상 위에 두고 쓰세요, 일기를 쓰기 좋아요, 종이가 두껍습니다, 필기감이 부드럽습니다"),
}
KOREAN_MATERIALS = _list("스테인리스, 원목, 편백나무, 도자기, 유리, 내열유리, 가죽, 면, 린넨, 양모, 실리콘, 알루미늄, 황동, 무쇠, 대나무, 종이, 고무, 티타늄, 옻칠 나무, 물푸레나무")
KOREAN_COLORS = _list("검정, 흰색, 빨강, 파랑, 초록, 노랑, 회색, 갈색, 분홍, 남색, 베이지, 하늘색")
KOREAN_COUNTERS = _list("종, 개, 매, 롤, 구, 장")
KOREAN_FILLERS = _list("""선물용 상자에 담아 드립니다, 주문하신 다음 날 보냅니다, 사용 후 그늘에 말려 주세요, 손잡이가 뜨거워지지 않습니다, 국내에서 만들었습니다, 오래 써도 모양이 변하지 않아요,
    관리가 간단합니다, 부품은 따로 살 수 있어요, 설명서가 들어 있습니다, 일 년 동안 고쳐 드립니다, 처음 쓰는 분도 어렵지 않습니다, 색이 잘 바래지 않아요""")
KOREAN_SYLLABLES = "가나다라마바사아자차카타파하거너더러머버서어저고노도로모보소오조호구누두루무부수우주후기니디리미비시이지희온담새빛길솔별들결한별강산연정민준서윤하은"

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


def korean_name(rng, evaluation, length=(2, 3)):
    """A Korean name of syllables drawn at random."""
    return _of_split(rng, lambda: "".join(rng.choice(KOREAN_SYLLABLES) for _ in range(rng.randint(*length))), evaluation)


def order_number(rng, evaluation):
    """An order number in one of a few formats."""

    def make():
        digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(5, 8)))
        letters = "".join(rng.choice("ABCDEFGHKLMNPRSTVWXZ") for _ in range(2))
        return rng.choice([digits, f"{letters}-{digits}", f"{digits[:4]}-{digits[4:]}{letters[0]}", f"{letters[0]}{digits}", f"{letters}{digits[:3]}-{digits[3:]}"])

    return _of_split(rng, make, evaluation)
