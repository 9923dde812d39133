// Every text of the console, in English and Korean.

const TEXTS = {
  en: {
    skip: "Skip to content",
    overview: "Overview", search: "Search", jobs: "Jobs", deadLetters: "Dead letters", pipelines: "Pipelines", document: "Document",
    dark: "Dark", light: "Light",
    token: "Token", tokenRequired: "This service requires a token.", signIn: "Sign in",
    failed: "The request failed: {0}", loading: "Loading…", nothing: "There are no entries.",
    ready: "The service is ready.", unready: "The service is not ready",
    recordsPerSecond: "Records per second", lag: "Lag in records", busy: "Device utilization", tokensPerSecond: "Tokens per second",
    costToday: "Cost in the last 24 hours", deviceToday: "Device time in the last 24 hours",
    recordsToday: "Records in the last 24 hours", deadToday: "Dead letters in the last 24 hours",
    waiting: "waiting for a second reading", noPrice: "no price is configured",
    query: "What are you looking for?", pipeline: "Pipeline", mode: "Mode", hybrid: "meaning and words", vector: "meaning",
    text: "words",
    filter: "Filter", filterHint: "task=label or field=value, one condition per line", found: "Documents found: {0}",
    summary: "Summary", score: "score {0}", byMeaning: "rank by meaning: {0}", byWords: "rank by words: {0}", notListed: "none",
    id: "ID", kind: "Kind", state: "State", progress: "Progress", rate: "Rate", left: "Time left", cancel: "Cancel", retry: "Retry",
    cancelled: "Job {0} is being cancelled.", retried: "Job {0} is being retried.", specification: "Specification",
    report: "Report",
    details: "Details", failedUnits: "Failed units", units: "Units", cost: "Cost", deviceSeconds: "Device seconds",
    tokens: "Tokens",
    class: "Failure class", reason: "Reason", position: "Position", time: "Time", task: "Task", replay: "Replay",
    recordsReplayed: "Records sent again: {0}", replayAll: "Replay all matching", all: "all", wholeRecord: "whole record",
    payload: "Payload", headers: "Headers", key: "Key", attempts: "Attempts",
    replayed: "replayed", source: "Source", stopped: "stopped", running: "running", graph: "Graph of {0}",
    version: "Version", outputs: "Outputs", history: "History", prompt: "Prompt", reused: "Reused", deleted: "deleted", yes: "yes",
    no: "no",
    reads: "input topic: {0}", model: "Model", when: "condition: {0}", back: "Back",
    documentText: "Text", answer: "Answer", leftOut: "Left out: {0}", passage: "Passage {0}",
    recommendations: "Recommendations", recommend: "Recommend", recommended: "Documents recommended: {0}",
    similarDocuments: "Similar documents",
    forUser: "For this user", likeDocument: "Similar to this document", neitherHint: "leave both empty for popular documents",
    similarTo: "{0} % similar to", likedBefore: "{0} % similar to a liked document:", sharedLabel: "same {0}: {1}",
    popularWith: "recently liked by {0} people",
    noVectors: "No pipeline makes vectors, so documents cannot be compared.",
    copy: "Copy", review: "in review", approved: "approved", rejected: "rejected", superseded: "superseded", withdrawn: "withdrawn",
    inReview: "Versions that wait for a decision: {0}", listKeys: "Press J or K to move through the list, and Enter to open.",
    more: "More", passed: "All checks passed.",
    copyKeys: "Press A to approve, R to reject, E to edit, N for the next one.", approve: "Approve", reject: "Reject",
    takeDown: "Withdraw", edit: "Edit", next: "Next", save: "Save",
    approveDespite: "Some checks failed ({0}). Approve again to overrule them.", approvedNow: "Approved.", rejectedNow: "Rejected.",
    edited: "Saved. The new version waits for approval.",
    thePipeline: "the pipeline", writtenBy: "Written by", decidedBy: "Decided by", note: "Note", evidence: "Evidence for each fact",
    field: "Field", fact: "Fact", statedIn: "Stated in", inText: "text, bytes {0} to {1}",
    ofCharacters: "{0} of {1} characters", breaksSchema: "Does not match the schema", bannedWord: "Banned word",
    unsupportedClaim: "Unsupported claim",
    notQuoted: "Not quoted from the source", notStated: "Not stated in the source", notSupported: "Not supported by the source", noAddress: "No address",
    notUnique: "Used by another page",
    leads: "Leads", noLeads: "No pipeline has leads.", company: "Company", person: "Person", stage: "Stage", intent: "Intent",
    points: "Score",
    minScore: "Minimum score", threshold: "Leads with a score of {0} or more are delivered.", moreLeads: "More leads",
    saveCsv: "Save as CSV", parts: "Parts of the score",
    name: "Name", formula: "Formula", value: "Value", facts: "Extracted facts", proof: "Evidence",
    notInDocument: "not stated in the document", marked: "marked below",
    template: "template", copyDraft: "Copy", copied: "Copied.", selected: "Selected. Copy it with the keyboard.",
    underWay: "waiting", ofCompany: "Documents of this company: {0}", deliveries: "Deliveries", receiver: "Receiver",
    delivered: "delivered", refused: "refused", given_up: "given up",
    parkedEvents: "Parked events, which their topic refused", topic: "Topic", parked: "waits for an operator",
    overtaken: "a later event was sent", toBeResent: "will be sent again",
  },
  ko: {
    skip: "본문으로 건너뛰기",
    overview: "현황", search: "검색", jobs: "작업", deadLetters: "데드 레터", pipelines: "파이프라인", document: "문서",
    dark: "어둡게", light: "밝게",
    token: "토큰", tokenRequired: "이 서비스를 사용하려면 토큰이 필요합니다.", signIn: "로그인",
    failed: "요청이 실패했습니다: {0}", loading: "불러오는 중…", nothing: "항목이 없습니다.",
    ready: "서비스가 준비되었습니다.", unready: "서비스가 준비되지 않았습니다",
    recordsPerSecond: "초당 레코드 수", lag: "지연된 레코드 수", busy: "장치 사용률", tokensPerSecond: "초당 토큰 수",
    costToday: "최근 24시간 비용", deviceToday: "최근 24시간 장치 시간",
    recordsToday: "최근 24시간 레코드 수", deadToday: "최근 24시간 데드 레터 수",
    waiting: "두 번째 측정을 기다리는 중", noPrice: "단가가 설정되지 않음",
    query: "무엇을 찾으십니까?", pipeline: "파이프라인", mode: "방식", hybrid: "의미와 단어", vector: "의미", text: "단어",
    filter: "필터", filterHint: "태스크=레이블 또는 필드=값, 한 줄에 조건 하나", found: "검색된 문서: {0}건",
    summary: "요약", score: "점수 {0}", byMeaning: "의미 순위: {0}", byWords: "단어 순위: {0}", notListed: "없음",
    id: "ID", kind: "종류", state: "상태", progress: "진행률", rate: "속도", left: "남은 시간", cancel: "취소", retry: "재시도",
    cancelled: "작업 {0}을(를) 취소하고 있습니다.", retried: "작업 {0}을(를) 재시도하고 있습니다.", specification: "작업 명세", report: "보고서",
    details: "세부 정보", failedUnits: "실패한 단위", units: "단위", cost: "비용", deviceSeconds: "장치 시간(초)", tokens: "토큰",
    class: "실패 유형", reason: "사유", position: "위치", time: "시각", task: "태스크", replay: "재전송",
    recordsReplayed: "다시 보낸 레코드: {0}건", replayAll: "조건에 맞는 항목 모두 재전송", all: "전체", wholeRecord: "레코드 전체",
    payload: "페이로드", headers: "헤더", key: "키", attempts: "시도 횟수",
    replayed: "재전송됨", source: "소스", stopped: "중지됨", running: "실행 중", graph: "{0} 그래프",
    version: "버전", outputs: "결과", history: "이력", prompt: "프롬프트", reused: "재사용 여부", deleted: "삭제됨", yes: "예", no: "아니요",
    reads: "입력 토픽: {0}", model: "모델", when: "조건: {0}", back: "뒤로",
    documentText: "본문", answer: "답변", leftOut: "제외됨: {0}", passage: "구절 {0}",
    recommendations: "추천", recommend: "추천받기", recommended: "추천 문서: {0}건", similarDocuments: "비슷한 문서",
    forUser: "대상 사용자", likeDocument: "기준 문서", neitherHint: "둘 다 비우면 인기 문서를 추천합니다",
    similarTo: "{0} % 유사:", likedBefore: "좋아한 문서와 {0} % 유사:", sharedLabel: "같은 {0}: {1}", popularWith: "최근 {0}명이 좋아함",
    noVectors: "벡터를 만드는 파이프라인이 없어 문서를 비교할 수 없습니다.",
    copy: "문구", review: "검토 중", approved: "승인됨", rejected: "반려됨", superseded: "대체됨", withdrawn: "게시 철회됨",
    inReview: "결정을 기다리는 버전: {0}건", listKeys: "J와 K 키로 이동하고 Enter 키로 엽니다.", more: "더 보기", passed: "모든 검사를 통과했습니다.",
    copyKeys: "A 키로 승인, R 키로 반려, E 키로 편집, N 키로 다음 항목으로 이동합니다.", approve: "승인", reject: "반려", takeDown: "게시 철회", edit: "편집",
    next: "다음", save: "저장",
    approveDespite: "통과하지 못한 검사가 있습니다({0}). 그래도 승인하려면 한 번 더 승인하십시오.", approvedNow: "승인했습니다.", rejectedNow: "반려했습니다.",
    edited: "저장했습니다. 새 버전은 승인을 기다립니다.",
    thePipeline: "파이프라인", writtenBy: "작성자", decidedBy: "결정자", note: "메모", evidence: "사실별 근거", field: "필드", fact: "사실",
    statedIn: "출처", inText: "본문 {0}–{1}바이트",
    ofCharacters: "{1}자 중 {0}자", breaksSchema: "스키마와 맞지 않음", bannedWord: "금지어", unsupportedClaim: "근거 없는 주장",
    notQuoted: "원본에서 인용하지 않음", notStated: "원본에 없는 내용", notSupported: "원본이 뒷받침하지 않음", noAddress: "주소 없음", notUnique: "다른 페이지와 중복됨",
    leads: "리드", noLeads: "리드를 만드는 파이프라인이 없습니다.", company: "회사", person: "담당자", stage: "단계", intent: "의도", points: "점수",
    minScore: "최소 점수", threshold: "점수가 {0}점 이상인 리드를 전송합니다.", moreLeads: "리드 더 보기", saveCsv: "CSV로 저장", parts: "점수 구성",
    name: "이름", formula: "수식", value: "값", facts: "추출한 사실", proof: "근거", notInDocument: "문서에 없음", marked: "아래에 표시함",
    template: "템플릿", copyDraft: "복사", copied: "복사했습니다.", selected: "선택했습니다. 키보드로 복사하십시오.", underWay: "대기 중",
    ofCompany: "이 회사의 문서: {0}건", deliveries: "전송 내역", receiver: "수신처",
    delivered: "전송됨", refused: "거부됨", given_up: "포기함",
    parkedEvents: "보류된 이벤트(토픽이 거부한 이벤트)", topic: "토픽", parked: "운영자의 조치를 기다림", overtaken: "이후 이벤트가 전송됨", toBeResent: "재전송 예정",
  },
};

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("ko") ? "ko" : "en");

export const currentLanguage = () => language;

export function chooseLanguage(chosen) {
  language = chosen;
  localStorage.setItem("language", chosen);
}

/** The text with this key in the current language, with `{0}`, `{1}` … replaced by the values. */
export function say(key, ...values) {
  const text = TEXTS[language][key] ?? TEXTS.en[key] ?? key;
  return values.reduce((text, value, index) => text.replaceAll(`{${index}}`, value), text);
}

export const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

export const moment = (milliseconds) =>
  milliseconds == null ? "" : new Date(milliseconds).toLocaleString(language);
