//! The review of copy in a real browser, on pages that the shipped pipeline makes with the shipped writer.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{Duration, SOURCE, Worker, browse, eventually, open_folder, ready};

pub async fn decided_by_keyboard() {
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
    let pipeline = Path::new(SOURCE).join("pipelines/seo.yaml").display().to_string();
    let (input, data) = (input.display().to_string(), folder.path().join("data").display().to_string());
    let arguments = ["demo", "--serve", "--json", "--pipeline", &pipeline, "--input", &input, "--data-dir", &data];
    let mut demo = Worker::start(Path::new(SOURCE), &arguments.map(str::to_owned), &[]);
    eventually("the demo serves", Duration::from_secs(240), || {
        assert_eq!(demo.ended(), None, "the demo ended early:\n{}", demo.log());
        ready(demo.log().contains("serving http"))
    })
    .await;
    let log = demo.log();
    let report: serde_json::Value = serde_json::from_str(log.lines().rfind(|line| line.starts_with('{')).unwrap()).unwrap();
    let address = report["http"].as_str().unwrap().to_owned();
    let pictures = std::env::var_os("TIDEMILL_PICTURES").map_or_else(|| folder.path().join("pictures"), PathBuf::from);
    let said = spawn_blocking(move || browse("copy.mjs", &address, &pictures)).await.unwrap().unwrap_or_else(|e| panic!("{e:#}"));
    eprintln!("{}", said.trim());
    demo.signal(Signal::SIGINT);
    let status = spawn_blocking(move || (demo.wait(Duration::from_secs(30)), demo)).await.unwrap().0;
    assert!(status.success(), "told to stop, the demo ended with {status}");
}
