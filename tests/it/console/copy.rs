//! The review of copy in a real browser, on pages that a shipped pipeline makes with the shipped generator.

use serde_json::json;

use super::{Demo, open_folder};

pub async fn copy_is_decided_on_by_keyboard() {
    let folder = open_folder();
    let product = |sku: &str, title: &str, description: &str, language: &str| {
        let date = "2026-01-08";
        let fields = json!({"sku": sku, "title": title, "description": description, "language": language, "updated_at": date});
        format!("{fields}\n")
    };
    let products = [
        product("CP-1", "Oak bread board", "Made of solid oak. Measures 40 x 25 cm. Weighs 1.2 kg.", "en"),
        product("CP-2", "Lamp", "The cheapest lamp there is.", "none"),
        product("CP-3", "핸드드립 커피 세트", "드리퍼, 서버 600ml, 여과지 40매가 들어 있습니다.", "ko"),
        product("CP-4", "핸드드립  커피 세트", "다른 드리퍼입니다.", "ko"),
    ];
    let input = folder.path().join("products.jsonl");
    std::fs::write(&input, products.concat()).unwrap();
    let input = input.display().to_string();
    Demo::start(folder, &["--pipeline", "pipelines/seo.yaml", "--input", &input]).await.shown_to("copy.mjs").await;
}
