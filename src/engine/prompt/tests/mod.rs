mod constraint;
mod fixture;
mod golden;
mod schemas;
mod shortest;
mod templates;
mod text;
