use std::collections::BTreeMap;

use crate::prompt::chat_template::{ChatTemplate, TemplateMessage};
use crate::prompt::tests::fixture::{message, with_template};
use crate::request::Role;
use tidemill_base::failure::FailureClass;

/// Renders one user message. The expected results come from Hugging Face's own environment.
fn rendered(source: &str, content: &str) -> String {
    let specials = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    ChatTemplate::new(source, specials).unwrap().render(&[TemplateMessage { role: "user", content }], true, None).unwrap()
}

#[test]
fn templates_print_what_python_prints() {
    assert_eq!(rendered("{{ messages[0].content.strip() }}|{{ messages[0]['content'] | trim }}", " \u{1c}a\u{a0} "), "a|a");
    assert_eq!(rendered("{{ messages[0].content.lstrip('\\n') }}", "\n\n a "), " a ");
    assert_eq!(rendered("{{ none }} {{ true }} {{ nothing }} {{ 1.0 }} {{ bos_token }}", ""), "None True  1.0 <s>");
    assert_eq!(rendered("{{ {'a': [1, 2], 'b': '<é>'} | tojson }}", ""), "{\"a\": [1, 2], \"b\": \"<é>\"}");
    assert_eq!(rendered("{{ {'b': '<é😀>'} | tojson(ensure_ascii=true) }}", ""), "{\"b\": \"<\\u00e9\\ud83d\\ude00>\"}");
    assert_eq!(rendered("{{ {'a': [1]} | tojson(indent=4) }}", ""), "{\n    \"a\": [\n        1\n    ]\n}");
    assert_eq!(rendered("{{ tools is none }} {{ documents is none }} {{ custom is defined }}", ""), "True True False");
}

#[test]
fn blocks_leave_no_lines() {
    let source = "{% if add_generation_prompt %}\n  {% set x = 1 %}\nA\n  {% endif %}\nB\n";
    assert_eq!(rendered(source, ""), "A\nB");
}

#[test]
fn marks_of_the_model_s_own_words_print_nothing() {
    let source = "{%- for message in messages -%}\n{%- generation -%} {{ message.content }}  {%- endgeneration %}\n{% endfor %}";
    assert_eq!(rendered(source, "words"), "words");
}

#[test]
fn prompts_are_written_on_the_same_day_whenever_they_are_written() {
    assert_eq!(rendered("{{ strftime_now('%d %b %Y') }}", ""), "26 Jul 2024");
    let llama = "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now(\"%d %b %Y\") %}{%- else %}{%- set date_string = \"26 Jul 2024\" %}{%- endif %}{%- endif %}{{ date_string }}";
    assert_eq!(rendered(llama, ""), "26 Jul 2024");
}

#[test]
fn a_conversation_that_the_template_refuses_is_poison_in_its_words() {
    let source = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported!') }}{% endif %}{{ messages[0].content }}";
    let chat = with_template(source).unwrap();
    let refused = chat.encode(&[message(Role::System, "x")]).unwrap_err();
    assert_eq!(refused.class, FailureClass::Template);
    assert!(refused.reason.contains("System role not supported!"), "{refused}");
    assert_eq!(chat.render(&[message(Role::User, "x")], None).unwrap(), "x");
}

#[test]
fn a_template_that_runs_away_is_stopped() {
    let source =
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    let chat = with_template(source).unwrap();
    let refused = chat.render(&[message(Role::User, "x")], None).unwrap_err();
    assert!(refused.reason.contains("does not come to an end"), "{refused}");
}
