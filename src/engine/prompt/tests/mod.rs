mod constraint;
mod fixture;
mod golden;
pub(in crate::engine) mod schemas;
mod sentence;
mod shortest;
mod templates;
mod text;
