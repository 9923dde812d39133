//! Sitemaps as in <https://www.sitemaps.org/protocol.html>: the published pages and their last changes.
//!
//! The protocol limits a file to 50,000 pages and 50 MB. Twenty thousand addresses of the maximum length are within both limits.

use jiff::Timestamp;

/// The number of pages in one file.
pub const PAGES_PER_SITEMAP: i64 = 20_000;

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const NAMESPACE: &str = "http://www.sitemaps.org/schemas/sitemap/0.9";

/// A sitemap of pages: their addresses, and their last changes in Unix milliseconds.
pub(super) fn pages(pages: &[(String, i64)]) -> String {
    let mut xml = format!("{HEAD}<urlset xmlns=\"{NAMESPACE}\">\n");
    for (url, changed_ms) in pages {
        xml.push_str(&format!("<url><loc>{}</loc><lastmod>{}</lastmod></url>\n", escaped(url), time(*changed_ms)));
    }
    xml.push_str("</urlset>\n");
    xml
}

/// The index of several sitemaps.
pub(super) fn index(files: &[String], changed_ms: Option<i64>) -> String {
    let changed = changed_ms.map(|changed| format!("<lastmod>{}</lastmod>", time(changed))).unwrap_or_default();
    let mut xml = format!("{HEAD}<sitemapindex xmlns=\"{NAMESPACE}\">\n");
    for url in files {
        xml.push_str(&format!("<sitemap><loc>{}</loc>{changed}</sitemap>\n", escaped(url)));
    }
    xml.push_str("</sitemapindex>\n");
    xml
}

fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_escaped_and_dated() {
        let xml = pages(&[("https://a.example/p?x=1&y='2'".into(), 1_767_225_600_000)]);
        assert!(xml.starts_with(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">"
        ));
        let line = "<url><loc>https://a.example/p?x=1&amp;y=&apos;2&apos;</loc><lastmod>2026-01-01T00:00:00Z</lastmod></url>";
        assert!(xml.contains(line), "{xml}");
        assert!(xml.ends_with("</urlset>\n"));
    }

    #[test]
    fn an_index_names_its_files() {
        let xml = index(&["https://a.example/map-1.xml".into(), "https://a.example/map-2.xml".into()], None);
        assert_eq!(xml.matches("<sitemap><loc>").count(), 2);
        assert!(!xml.contains("lastmod"));
    }

    #[test]
    fn a_full_file_is_within_what_the_protocol_allows() {
        let line = format!("<url><loc>{}</loc><lastmod>2026-01-01T00:00:00Z</lastmod></url>\n", "&amp;".repeat(409));
        assert!(
            PAGES_PER_SITEMAP <= 50_000 && PAGES_PER_SITEMAP as usize * line.len() < 50_000_000,
            "{} bytes",
            PAGES_PER_SITEMAP as usize * line.len()
        );
    }
}
