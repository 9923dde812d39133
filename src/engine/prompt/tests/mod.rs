mod constraint;
mod fixture;
mod golden;
mod schemas;
mod sentence;
mod shortest;
mod templates;
mod text;
