mod constraint;
mod fixture;
mod golden;
pub(crate) mod schemas;
mod sentencepiece;
mod shortest;
mod templates;
mod text;
