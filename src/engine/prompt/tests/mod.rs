mod constraint;
mod fixture;
mod golden;
pub(crate) mod schemas;
mod sentence;
mod shortest;
mod templates;
mod text;
