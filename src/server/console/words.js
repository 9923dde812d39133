// Every word that the console says, in English and Korean.

const WORDS = {
  en: {
    skip: "Skip to the content",
    overview: "Overview", search: "Search", jobs: "Jobs", letters: "Dead letters", pipelines: "Pipelines", document: "Document",
    dark: "Dark", light: "Light",
    token: "Token", tokenAsk: "This service asks for a token.", signIn: "Sign in",
    failed: "That did not work: {0}", loading: "Loading…", nothing: "Nothing here.",
    ready: "Everything is in order.", unready: "Out of order",
    recordsPerSecond: "Records per second", lag: "Records behind", busy: "Device busy", tokensPerSecond: "Tokens per second",
    costToday: "Cost of the last 24 hours", deviceToday: "Device time of the last 24 hours",
    recordsToday: "Records of the last 24 hours", waiting: "waits for a second measurement", noPrice: "no price is configured",
    query: "What are you looking for?", pipeline: "Pipeline", mode: "Mode", hybrid: "meaning and words", vector: "meaning", text: "words",
    filter: "Filter", filterHint: "task=label or field=value, one a line", found: "{0} documents found",
    summary: "Summary", score: "score {0}", byMeaning: "by meaning: {0}", byWords: "by words: {0}", notListed: "not listed",
    id: "Id", kind: "Kind", state: "State", progress: "Progress", rate: "Rate", left: "Time left", cancel: "Cancel", retry: "Retry",
    cancelled: "Job {0} is being cancelled.", retried: "Job {0} is tried again.", asked: "What was asked for", report: "Report",
    faults: "Units that failed", dead: "Dead letters", units: "Units", cost: "Cost", deviceSeconds: "Device seconds", tokens: "Tokens",
    class: "Class", reason: "Reason", place: "Place", time: "Time", task: "Task", replay: "Replay", replayed: "{0} records are sent again.",
    replayAll: "Replay all of these", all: "all", wholeRecord: "whole record", payload: "Payload", headers: "Headers", key: "Key", attempts: "Attempts",
    sentAgain: "sent again", source: "Source", stopped: "stopped", running: "running", graph: "The graph of {0}",
    version: "Version", outputs: "Outputs", history: "History", label: "Label", prompt: "Prompt", reused: "taken over", deleted: "deleted", yes: "yes", no: "no",
    reads: "reads topic {0}", model: "Model", when: "when {0}", records: "Records", back: "Back",
    words: "Text", answer: "Answer", leftOut: "Left out: {0}", passage: "Passage {0}",
    recommendations: "Recommendations", recommend: "Recommend", recommended: "{0} documents recommended", alike: "Similar documents",
    forUser: "For this user", likeDocument: "Like this document", neitherHint: "without both: what is popular",
    similarTo: "{0} % like", likedBefore: "{0} % like what they liked:", sharedLabel: "{0}: {1}, too", popularWith: "liked by {0} people of late",
    noVectors: "No pipeline makes vectors to compare documents by.",
    copy: "Copy", review: "waiting", approved: "approved", rejected: "rejected", superseded: "superseded", withdrawn: "withdrawn",
    waitForYou: "{0} wait for a decision.", listKeys: "J and K move through the list, Enter opens.", more: "More", passed: "Every check is passed.",
    copyKeys: "A approves, R rejects, E edits, N goes on.", approve: "Approve", reject: "Reject", takeDown: "Take down", edit: "Edit", next: "Next", save: "Save",
    approveDespite: "Checks speak against it ({0}). Approve again to overrule them.", approvedNow: "Approved.", rejectedNow: "Rejected.", edited: "Saved; it waits to be approved.",
    thePipeline: "the pipeline", writtenBy: "Written by", decidedBy: "Decided by", note: "Note", evidence: "Where each fact comes from", fact: "Fact", saidBy: "Said by", inText: "text, bytes {0} to {1}",
    ofCharacters: "{0} of {1} characters", breaksSchema: "Breaks the schema", bannedWord: "Banned word", unfoundedClaim: "Unfounded claim",
    notTheSources: "Not from the source", notSaid: "The source does not say it", noAddress: "No address", notUnique: "Another page has it",
    leads: "Leads", noLeads: "No pipeline makes leads.", company: "Company", person: "Person", stage: "Stage", intent: "Intent", points: "Score",
    minScore: "Least score", threshold: "From {0} on a lead is told of.", moreLeads: "Further leads", saveCsv: "Save as CSV", parts: "What the score is made of",
    name: "Name", formula: "Formula", value: "Value", facts: "Facts", proof: "Evidence", notInDocument: "not said in the document", marked: "marked below",
    template: "template", copyDraft: "Copy", copied: "Copied.", selected: "Selected: copy it with the keyboard.", underWay: "on its way", ofCompany: "{0} documents of this company", deliveries: "Who was told", receiver: "Receiver",
    delivered: "delivered", refused: "refused", given_up: "given up",
    parkedEvents: "Events that their topic could not take", topic: "Topic", parked: "waits for an operator", overtaken: "a later one went out", toBeResent: "is sent again",
  },
  ko: {
    skip: "본문으로 건너뛰기",
    overview: "현황", search: "검색", jobs: "작업", letters: "실패 레코드", pipelines: "파이프라인", document: "문서",
    dark: "어둡게", light: "밝게",
    token: "토큰", tokenAsk: "이 서비스는 토큰을 요구합니다.", signIn: "들어가기",
    failed: "실패했습니다: {0}", loading: "불러오는 중…", nothing: "아무것도 없습니다.",
    ready: "모두 정상입니다.", unready: "이상 있음",
    recordsPerSecond: "초당 레코드", lag: "밀린 레코드", busy: "장치 가동률", tokensPerSecond: "초당 토큰",
    costToday: "최근 24시간 비용", deviceToday: "최근 24시간 장치 시간",
    recordsToday: "최근 24시간 레코드", waiting: "두 번째 측정을 기다립니다", noPrice: "가격이 설정되지 않았습니다",
    query: "무엇을 찾으십니까?", pipeline: "파이프라인", mode: "방식", hybrid: "뜻과 낱말", vector: "뜻", text: "낱말",
    filter: "조건", filterHint: "작업=라벨 또는 필드=값, 한 줄에 하나씩", found: "문서 {0}건",
    summary: "요약", score: "점수 {0}", byMeaning: "뜻으로: {0}", byWords: "낱말로: {0}", notListed: "목록에 없음",
    id: "아이디", kind: "종류", state: "상태", progress: "진행", rate: "속도", left: "남은 시간", cancel: "취소", retry: "다시 시도",
    cancelled: "작업 {0}을(를) 취소하고 있습니다.", retried: "작업 {0}을(를) 다시 시도합니다.", asked: "요청 내용", report: "보고",
    faults: "실패한 단위", dead: "실패 레코드", units: "단위", cost: "비용", deviceSeconds: "장치 시간(초)", tokens: "토큰",
    class: "분류", reason: "이유", place: "위치", time: "시각", task: "태스크", replay: "다시 보내기", replayed: "레코드 {0}건을 다시 보냅니다.",
    replayAll: "모두 다시 보내기", all: "전체", wholeRecord: "레코드 전체", payload: "내용", headers: "헤더", key: "키", attempts: "시도",
    sentAgain: "다시 보냄", source: "소스", stopped: "멈춤", running: "실행 중", graph: "{0}의 그래프",
    version: "버전", outputs: "결과", history: "이력", label: "라벨", prompt: "프롬프트", reused: "재사용", deleted: "삭제됨", yes: "예", no: "아니요",
    reads: "토픽 {0}을(를) 읽음", model: "모델", when: "조건: {0}", records: "레코드", back: "뒤로",
    words: "본문", answer: "답변", leftOut: "제외됨: {0}", passage: "구절 {0}",
    recommendations: "추천", recommend: "추천받기", recommended: "추천 문서 {0}건", alike: "비슷한 문서",
    forUser: "이 사용자에게", likeDocument: "이 문서와 비슷한", neitherHint: "둘 다 비우면 인기 문서",
    similarTo: "{0} % 비슷함:", likedBefore: "좋아한 문서와 {0} % 비슷함:", sharedLabel: "같은 {0}: {1}", popularWith: "최근 {0}명이 좋아함",
    noVectors: "문서를 비교할 벡터를 만드는 파이프라인이 없습니다.",
    copy: "문구", review: "검토 대기", approved: "승인됨", rejected: "거절됨", superseded: "대체됨", withdrawn: "철회됨",
    waitForYou: "{0}건이 결정을 기다립니다.", listKeys: "J와 K로 옮겨 다니고 Enter로 엽니다.", more: "더 보기", passed: "모든 검사를 통과했습니다.",
    copyKeys: "A 승인, R 거절, E 고치기, N 다음.", approve: "승인", reject: "거절", takeDown: "내리기", edit: "고치기", next: "다음", save: "저장",
    approveDespite: "검사에 걸렸습니다({0}). 그래도 승인하려면 한 번 더 누르십시오.", approvedNow: "승인했습니다.", rejectedNow: "거절했습니다.", edited: "저장했습니다. 승인을 기다립니다.",
    thePipeline: "파이프라인", writtenBy: "쓴 이", decidedBy: "결정한 이", note: "메모", evidence: "사실마다 나온 곳", fact: "사실", saidBy: "근거", inText: "본문 {0}–{1}바이트",
    ofCharacters: "{1}자 중 {0}자", breaksSchema: "스키마에 어긋남", bannedWord: "금지된 말", unfoundedClaim: "근거 없는 주장",
    notTheSources: "원본에 없는 값", notSaid: "원본에 없는 말", noAddress: "주소 없음", notUnique: "다른 페이지와 같음",
    leads: "리드", noLeads: "리드를 만드는 파이프라인이 없습니다.", company: "회사", person: "담당자", stage: "단계", intent: "의도", points: "점수",
    minScore: "최소 점수", threshold: "{0}점부터 알립니다.", moreLeads: "다음 리드", saveCsv: "CSV로 저장", parts: "점수의 구성",
    name: "이름", formula: "식", value: "값", facts: "사실", proof: "근거", notInDocument: "문서에 없는 내용", marked: "아래에 표시",
    template: "템플릿", copyDraft: "복사", copied: "복사했습니다.", selected: "선택했습니다. 키보드로 복사하십시오.", underWay: "전달 중", ofCompany: "이 회사의 문서 {0}건", deliveries: "알린 곳", receiver: "받는 곳",
    delivered: "전달됨", refused: "거절됨", given_up: "포기함",
    parkedEvents: "토픽이 받지 못한 이벤트", topic: "토픽", parked: "운영자를 기다림", overtaken: "뒤의 이벤트가 먼저 나감", toBeResent: "다시 보냄",
  },
};

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("ko") ? "ko" : "en");

export const current = () => language;

export function choose(chosen) {
  language = chosen;
  localStorage.setItem("language", chosen);
}

export function say(word, ...values) {
  const text = WORDS[language][word] ?? WORDS.en[word] ?? word;
  return values.reduce((text, value, place) => text.replaceAll(`{${place}}`, value), text);
}

export const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

export const moment = (milliseconds) =>
  milliseconds == null ? "" : new Date(milliseconds).toLocaleString(language);
