//! A decoder in plain loops of f64, from the configuration and the weights alone: slow, and nothing shared with the engine.

use std::collections::HashMap;

use serde_json::Value;

/// The weights by name.
pub(super) type Weights = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// A model in plain loops.
pub(super) struct Plain<'a> {
    pub(super) config: &'a Value,
    pub(super) weights: &'a Weights,
}

impl Plain<'_> {
    fn size(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap() as usize
    }

    fn kind(&self) -> &str {
        self.config["model_type"].as_str().unwrap()
    }

    fn values(&self, name: &str) -> &[f32] {
        &self.weights.get(name).unwrap_or_else(|| panic!("no tensor {name}")).1
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.values(&format!("{name}.weight"));
        let mut y: Vec<f64> =
            weight.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()).collect();
        if let Some((_, bias)) = self.weights.get(&format!("{name}.bias")) {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += f64::from(*b));
        }
        y
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let factor = 1.0 / (mean + self.config["rms_norm_eps"].as_f64().unwrap()).sqrt();
        x.iter().zip(self.values(&format!("{name}.weight"))).map(|(x, w)| x * factor * f64::from(*w)).collect()
    }

    fn frequency(&self, pair: usize) -> f64 {
        let frequency = 1.0 / self.config["rope_theta"].as_f64().unwrap().powf(2.0 * pair as f64 / self.size("head_dim") as f64);
        let Some(scaling) = self.config.get("rope_scaling") else { return frequency };
        let number = |key: &str| scaling[key].as_f64().unwrap();
        let (turns, factor) = (number("original_max_position_embeddings") * frequency / std::f64::consts::TAU, number("factor"));
        let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
        // 0 where a wave is longer than the original text allows, 1 where it is short.
        let part = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        part * frequency + (1.0 - part) * frequency / factor
    }

    fn rotate(&self, head: &mut [f64], position: usize) {
        let half = head.len() / 2;
        for i in 0..half {
            let (sine, cosine) = (position as f64 * self.frequency(i)).sin_cos();
            let (x, y) = (head[i], head[half + i]);
            (head[i], head[half + i]) = (x * cosine - y * sine, y * cosine + x * sine);
        }
    }

    fn window(&self, layer: usize) -> usize {
        let window = self.config["sliding_window"].as_u64().map(|window| window as usize);
        match (self.kind(), window) {
            ("mistral", Some(window)) => window,
            ("qwen2" | "qwen3", Some(window))
                if self.config["use_sliding_window"] == true && layer >= self.size("max_window_layers") =>
            {
                window
            }
            _ => usize::MAX,
        }
    }

    fn attend(&self, layer: usize, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let at = |part: &str| format!("model.layers.{layer}.self_attn.{part}");
        let (heads, kv_heads, width) =
            (self.size("num_attention_heads"), self.size("num_key_value_heads"), self.size("head_dim"));
        let turned = |part: &str, x: &[f64], position: usize| {
            let mut row = self.linear(&at(&format!("{part}_proj")), x);
            for head in row.chunks_exact_mut(width) {
                if self.kind() == "qwen3" {
                    let normed = self.norm(&at(&format!("{part}_norm")), head);
                    head.copy_from_slice(&normed);
                }
                self.rotate(head, position);
            }
            row
        };
        let queries: Vec<Vec<f64>> = rows.iter().enumerate().map(|(i, x)| turned("q", x, i)).collect();
        let keys: Vec<Vec<f64>> = rows.iter().enumerate().map(|(i, x)| turned("k", x, i)).collect();
        let values: Vec<Vec<f64>> = rows.iter().map(|x| self.linear(&at("v_proj"), x)).collect();
        let result = |position: usize| {
            let mut context = vec![0.0; heads * width];
            for head in 0..heads {
                let query = &queries[position][head * width..][..width];
                let shared = head / (heads / kv_heads) * width;
                let seen = (position + 1).saturating_sub(self.window(layer))..=position;
                let score =
                    |key: usize| query.iter().zip(&keys[key][shared..]).map(|(q, k)| q * k).sum::<f64>() / (width as f64).sqrt();
                let weights: Vec<(usize, f64)> = seen.map(|key| (key, score(key).exp())).collect();
                let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
                for (key, weight) in weights {
                    for i in 0..width {
                        context[head * width + i] += weight / sum * values[key][shared + i];
                    }
                }
            }
            self.linear(&at("o_proj"), &context)
        };
        (0..rows.len()).map(result).collect()
    }

    /// The logits after each token.
    pub(super) fn logits(&self, ids: &[u32]) -> Vec<Vec<f64>> {
        let hidden = self.size("hidden_size");
        let table = self.values("model.embed_tokens.weight");
        let mut rows: Vec<Vec<f64>> =
            ids.iter().map(|id| table[*id as usize * hidden..][..hidden].iter().map(|x| f64::from(*x)).collect()).collect();
        let add = |rows: &mut Vec<Vec<f64>>, more: Vec<Vec<f64>>| {
            rows.iter_mut().flatten().zip(more.into_iter().flatten()).for_each(|(x, y)| *x += y);
        };
        for layer in 0..self.size("num_hidden_layers") {
            let at = |part: &str| format!("model.layers.{layer}.{part}");
            let normed: Vec<Vec<f64>> = rows.iter().map(|x| self.norm(&at("input_layernorm"), x)).collect();
            let attended = self.attend(layer, &normed);
            add(&mut rows, attended);
            let feed = |x: &Vec<f64>| {
                let x = self.norm(&at("post_attention_layernorm"), x);
                let gates = self.linear(&at("mlp.gate_proj"), &x);
                let values = self.linear(&at("mlp.up_proj"), &x);
                let inner: Vec<f64> =
                    gates.iter().zip(values).map(|(gate, value)| gate / (1.0 + (-gate).exp()) * value).collect();
                self.linear(&at("mlp.down_proj"), &inner)
            };
            let fed = rows.iter().map(feed).collect();
            add(&mut rows, fed);
        }
        let head = if self.config["tie_word_embeddings"] == true { "model.embed_tokens" } else { "lm_head" };
        rows.iter().map(|x| self.linear(head, &self.norm("model.norm", x))).collect()
    }
}
