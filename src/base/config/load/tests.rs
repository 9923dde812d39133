use super::*;

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidemill.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn error_of(text: &str, environment: &[(&str, &str)]) -> String {
    let (_folder, path) = written(text);
    let error = Config::layered(Some(&path), variables(environment), &[]).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "tidemill.toml")
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let (_folder, path) = written("[server]\nlisten = \"127.0.0.1:1\"\n[limits]\ndrain_seconds = 7\nwatchdog_seconds = 7\n");
    let environment = variables(&[("TIDEMILL_SERVER__LISTEN", "127.0.0.1:2"), ("TIDEMILL_LIMITS__DRAIN_SECONDS", "8")]);
    let flag = Flag { name: "--listen", setting: "server.listen", value: "127.0.0.1:3".into() };
    let config = Config::layered(Some(&path), environment, &[flag]).unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:3", "the flag wins");
    assert_eq!(config.limits.drain_seconds, 8, "the variable wins over the file");
    assert_eq!(config.limits.watchdog_seconds, 7, "the file wins over the default");
    assert_eq!(config.limits.in_flight_bytes, 16 << 20, "the default stays");
}

#[test]
fn a_variable_that_looks_like_a_number_stays_text_where_text_is_wanted() {
    let environment = variables(&[("TIDEMILL_SERVER__TOKEN", "0042004200420042"), ("TIDEMILL_DATABASE__MAX_CONNECTIONS", "5")]);
    let config = Config::layered(None, environment, &[]).unwrap();
    assert_eq!(config.server.token.as_deref(), Some("0042004200420042"));
    assert_eq!(config.database.max_connections, Some(5));
}

#[test]
fn a_model_can_be_named_by_variable() {
    let config = Config::layered(None, variables(&[("TIDEMILL_MODELS__MINILM__PATH", "models/minilm")]), &[]).unwrap();
    assert_eq!(config.models["minilm"].path.as_deref(), Some(Path::new("models/minilm")));
}

#[test]
fn an_unknown_setting_names_its_place_and_the_nearest_known_one() {
    assert_eq!(
        error_of("[server]\nlisen = \"x\"", &[]),
        "tidemill.toml: unknown setting `lisen` in `server`; did you mean `listen`?"
    );
    assert_eq!(error_of("data_dri = \"x\"", &[]), "tidemill.toml: unknown setting `data_dri`; did you mean `data_dir`?");
    assert_eq!(
        error_of("", &[("TIDEMILL_KAFKA__BROKER", "x")]),
        "variable TIDEMILL_KAFKA__BROKER: unknown setting `broker` in `kafka`; did you mean `brokers`?"
    );
}

#[test]
fn a_wrong_type_names_the_setting_and_the_place() {
    let error = error_of("", &[("TIDEMILL_LIMITS__DRAIN_SECONDS", "soon")]);
    assert_eq!(
        error,
        "variable TIDEMILL_LIMITS__DRAIN_SECONDS: `limits.drain_seconds`: invalid type: found string \"soon\", expected u64"
    );
}

#[test]
fn no_error_shows_a_secret() {
    for text in
        ["[server]\ntoken = 77777", "[server]\ntoken = s77777", "[database]\nurl = [\"77777\"]", "[kafka.settings]\nx = 77777"]
    {
        let error = error_of(text, &[]);
        assert!(!error.contains("77777"), "the error for {text:?} shows the secret: {error}");
    }
    let config = Config::layered(None, variables(&[("TIDEMILL_DATABASE__URL", "postgres://u:77777@h/d")]), &[]).unwrap();
    assert!(!format!("{config:?}").contains("77777"), "Debug shows the secret");
}

#[test]
fn a_broken_file_names_the_line() {
    let error = error_of("[server]\nlisten = \"x\"\ntoken = \n", &[]);
    assert!(error.starts_with("tidemill.toml, line 3: "), "{error}");
}

#[test]
fn paths_in_the_file_start_from_the_file_and_others_from_the_current_folder() {
    let (folder, path) = written("pipelines = \"p\"\n[models.minilm]\npath = \"m\"\n[datasets.results]\npath = \"/abs\"\n");
    let config = Config::layered(Some(&path), variables(&[("TIDEMILL_DATA_DIR", "d")]), &[]).unwrap();
    assert_eq!(config.pipelines, folder.path().join("p"));
    assert_eq!(config.models["minilm"].path, Some(folder.path().join("m")));
    assert_eq!(config.datasets["results"].path, Path::new("/abs"));
    assert_eq!(config.data_dir, Path::new("d"));
}

#[test]
fn variables_that_others_read_are_no_settings() {
    let environment = variables(&[("TIDEMILL_CPU", "avx2"), ("TIDEMILL_CACHE_DIR", "/c"), ("TIDEMILL_DATA_DIR", "d")]);
    assert_eq!(Config::layered(None, environment, &[]).unwrap().data_dir, Path::new("d"));
}

#[test]
fn secrets_come_from_files_too() {
    let (folder, path) = written("[database]\nurl_file = \"url\"\n");
    let missing = Config::layered(Some(&path), [], &[]).unwrap_err().to_string();
    assert!(missing.contains("`database.url_file` names"), "{missing}");
    std::fs::write(folder.path().join("url"), "postgres://h/d\n").unwrap();
    let config = Config::layered(Some(&path), [], &[]).unwrap();
    assert_eq!(config.database.url.as_deref(), Some("postgres://h/d"));
    let twice = Config::layered(Some(&path), variables(&[("TIDEMILL_DATABASE__URL", "x")]), &[]).unwrap_err().to_string();
    assert_eq!(twice, "`database.url` and `database.url_file` are both set; remove one");
}

#[test]
fn what_a_kubelet_sets_for_services_is_no_setting() {
    let links = [
        ("TIDEMILL_SERVICE_HOST", "10.0.0.7"),
        ("TIDEMILL_SERVICE_PORT", "8080"),
        ("TIDEMILL_SERVICE_PORT_HTTP", "8080"),
        ("TIDEMILL_PORT", "tcp://10.0.0.7:8080"),
        ("TIDEMILL_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
        ("TIDEMILL_PORT_8080_TCP_PROTO", "tcp"),
        ("TIDEMILL_PORT_8080_TCP_PORT", "8080"),
        ("TIDEMILL_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ("TIDEMILL_MODELS_SERVICE_HOST", "10.0.0.8"),
        ("TIDEMILL_MODELS_PORT", "udp://10.0.0.8:53"),
        ("TIDEMILL_MODELS_PORT_53_UDP_ADDR", "10.0.0.8"),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Config::layered(None, links.map(owned), &[]).unwrap();
    for (name, value) in
        [("TIDEMILL_PORT", "8080"), ("TIDEMILL_SERVER__PORT", "8080"), ("TIDEMILL_SERVICE", "x"), ("TIDEMILL_PORT_X_TCP", "1")]
    {
        let error = Config::layered(None, [owned((name, value))], &[]).unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn a_token_that_can_be_guessed_is_refused_and_not_shown() {
    for token in ["a", "s3cret-s3cret-s"] {
        let error =
            Config::layered(None, [("TIDEMILL_SERVER__TOKEN".to_owned(), token.to_owned())], &[]).unwrap_err().to_string();
        assert!(error.contains("`server.token` has") && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn no_connections_are_too_few() {
    for name in ["max_connections", "question_connections"] {
        let variable = format!("TIDEMILL_DATABASE__{}", name.to_uppercase());
        let error = Config::layered(None, [(variable, "0".to_owned())], &[]).unwrap_err().to_string();
        assert_eq!(error, format!("`database.{name}` is 0; write 1 or more"));
    }
}

#[test]
fn a_command_without_use_for_secrets_runs_where_they_are_not_mounted() {
    let text = "[database]\nurl_file = \"/nowhere/url\"\n[server]\ntoken_file = \"/nowhere/token\"\n";
    let (_folder, path) = written(text);
    assert!(Config::load(Some(&path), &[]).unwrap_err().0.contains("/nowhere/url"));
    assert_eq!(Config::load_without_secrets(Some(&path), &[]).unwrap().server.token, None);
}

#[test]
fn the_token_of_a_scraper_is_not_the_operators() {
    let same = "[server]\ntoken = \"0123456789abcdef\"\nmetrics_token = \"0123456789abcdef\"\n";
    assert!(error_of(same, &[]).contains("`server.metrics_token` are the same"), "{}", error_of(same, &[]));
    let short = error_of("[server]\nmetrics_token = \"0123456789abcde\"\n", &[]);
    assert!(short.starts_with("`server.metrics_token` has 15 bytes"), "{short}");
}
