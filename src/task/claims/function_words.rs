//! Words that state nothing of their own: function words, and words that name an attribute or introduce one (`weighs`, `크기`).

use std::collections::HashMap;
use std::sync::LazyLock;

/// English function words, separated by spaces.
const ENGLISH: &str = "a about above across after again against ago ahead all along already also although am among an and \
    another any anyone anything are aren't around as at away back be because been before behind being below beneath beside \
    between beyond both but by can could did didn't do does doesn't doing don't done down during each either else enough even \
    ever every everyone everything few for from further get gets give gives given go goes had has hasn't have having he her \
    here hers herself him himself his how however i if in inside instead into is isn't it it's its itself just let lets like \
    likely made make makes making many may me might more much must my myself near need needs next no nor not now of off often \
    on once one ones onto or other others our ours out outside over own per perhaps put quite rather really same see seem \
    seems several shall she should since so some someone something soon still such take takes than that that's the their \
    theirs them themselves then there there's these they this those though through throughout thus to together too toward \
    towards under until up upon us use used uses using very via was wasn't way we well were what whatever when where whether \
    which while who whole whom whose why will with within without would yes yet you you're your yours yourself";

/// English words that introduce a fact or name an attribute. Separated by spaces.
const ATTRIBUTES: &str = "add added allow allows approximately apart available bring brings called capacity category code \
    color colored colors colour coloured colours come comes contain contains contents cost costs currency date description \
    design designed detail details dimension dimensions ensure ensures exactly feature features find good height help helps \
    high hold holds ideal include included includes including item items keep keeps kind known length long material materials \
    measure measures measuring mean means model name named number offer offers option pack part piece pieces price priced \
    product products provide provides quality range run runs say says serve set sets size sized sizes small suit suitable \
    suits sure tall thick thing things type version weigh weighing weighs weight wide width work works begin begins become \
    becomes depth diameter end ends expect expects leave leaves move moves remain remains show shows stand stands start \
    starts stay stays take takes tell tells total turn turns weighed";

/// Korean words that introduce a fact or name an attribute, without particles and endings. Separated by spaces.
const KOREAN_ATTRIBUTES: &str = "제품 상품 물건 크기 무게 길이 너비 높이 두께 가격 소재 재질 색상 색 종류 용량 용도 구성 구성품 사용 제공 포함 특징 장점 가능 필요 가로 세로 지름 적합 \
    만들다 만들었다 만든 만드는 만들어 좋다 이용 활용 설명 제작 크다 작다 들어 들다 담다 쓰다 나오다 갖추다 지니다";

/// Korean function words, without particles and endings. Separated by spaces.
const KOREAN: &str = "것 수 등 및 또 또는 그리고 그러나 하지만 그래서 따라서 이 그 저 이것 그것 여기 때문 위해 통해 대해 대한 따라 경우 정도 약 더 매우 아주 모두 함께 바로 잘 못 안 다시 이미 \
    아직 등등 이상 이하 가운데 중 그중 동안 후 전 미리 덜 있는 있고 있어 있으며 하는 하고 한 할 되는 되고 된 될 있다 없다 하다 되다 이다 아니다 같다 위한 하나 둘 각 각각 우리 당신 누구 무엇 어디 언제 오다 \
    가다 보다 주다 받다 가지다 두다";

/// Markers of languages for which there is no list. Where a source has more of them than of English words, words are compared
/// loosely.
const FOREIGN: &str = "der die das und ist mit für ein eine nicht auf den dem des von zu im wird le la les un une et est avec \
    pour dans des du sur el los las una con para por que del il lo gli di che per una een het van voor met niet os da do em \
    para com não och att är som på med til ikke jest nie na się oraz i w z";

/// Beginnings of Korean words that deny what stands before them.
const KOREAN_DENIALS: &[&str] = &["없", "않", "아니", "아닌", "아닙", "마세요", "마십", "말고", "말아", "못"];

/// What a word can state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Nothing: a function word.
    None,
    /// Nothing alone: it introduces a fact or names an attribute.
    Attribute,
    Content,
}

static WEIGHTS: LazyLock<HashMap<&str, Weight>> = LazyLock::new(|| {
    let list = |words: &'static str, weight| words.split_whitespace().map(move |word| (word, weight));
    let attributes = list(ATTRIBUTES, Weight::Attribute).chain(list(KOREAN_ATTRIBUTES, Weight::Attribute));
    attributes.chain(list(ENGLISH, Weight::None)).chain(list(KOREAN, Weight::None)).collect()
});

static LANGUAGES: LazyLock<HashMap<&str, bool>> = LazyLock::new(|| {
    let list = |words: &'static str, is_foreign| words.split_whitespace().map(move |word| (word, is_foreign));
    list(FOREIGN, true).chain(list(ENGLISH, false)).collect()
});

/// What the folded English or Korean word can state.
pub(super) fn weight(word: &str) -> Weight {
    WEIGHTS.get(word).copied().unwrap_or(Weight::Content)
}

/// Whether the words of a source are mostly of a language for which there is no list.
pub(super) fn is_foreign<'a>(words: impl Iterator<Item = &'a str>) -> bool {
    let (foreign, english): (Vec<bool>, _) = words.filter_map(|word| LANGUAGES.get(word)).partition(|is_foreign| **is_foreign);
    foreign.len() >= 2 && foreign.len() > english.len()
}

/// Whether a Korean word only denies what stands before it.
pub(super) fn is_korean_denial(word: &str) -> bool {
    KOREAN_DENIALS.iter().any(|denial| word.starts_with(denial))
}
