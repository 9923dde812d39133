mod constraint;
mod fixture;
mod schemas;
mod shortest;
mod templates;
mod text;
